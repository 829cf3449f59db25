"""Renderer: chat messages to token ids, once, and from then on only by appending.

Invariant: the tokens of an episode are the opening, and then, by turns, what the policy sampled and what the renderer
appended; text that was sampled is never encoded again. That is only sound where the model's chat template never
rewrites what it already wrote, so the renderer proves that at construction for the roles an environment uses, and again
on each finished episode (tests/test_renderer.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from ..envs.task import Message
from ..sandbox.errors import LudusError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MARK = "\ue000"
"""A private-use character that stands for a message's content while the template around it is rendered."""


class TemplateError(LudusError):
    """A chat template that is missing, fails, or rewrites history."""


class Renderer:
    """Renders the conversations of one environment for one model.

    tokenizer: with a chat template. tools: JSON schemas that the template may print. roles: those that messages of the
    environment have after the opening. on_rewrite: what to do with a template that rewrites history: `refuse` raises
    TemplateError with the differing text; `segment` lets the rollout start a new trajectory at each turn.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        tools: Sequence[dict[str, Any]] = (),
        roles: Sequence[str] = ("tool", "user"),
        on_rewrite: Literal["refuse", "segment"] = "refuse",
    ) -> None:
        if not tokenizer.chat_template:
            raise TemplateError(
                "The model's tokenizer has no chat template; give one with model.chat_template (a Jinja file)."
            )
        if tokenizer.eos_token is None:
            raise TemplateError("The tokenizer names no end-of-turn token; set its eos_token to what ends a turn.")
        self.tokenizer = tokenizer
        self.tools: list[Any] | None = list(tools) or None
        self.end_id: int = tokenizer.eos_token_id
        self.end_text: str = tokenizer.eos_token
        self.special: list[str] = list(tokenizer.all_special_tokens)
        self.on_rewrite = on_rewrite
        self._encode = lru_cache(maxsize=4096)(self._encode_uncached)
        self._append = lru_cache(maxsize=4096)(self._append_uncached)
        self._open = lru_cache(maxsize=1024)(self._open_uncached)
        self.append_only = True
        try:
            self._prove(roles)
        except TemplateError:
            if on_rewrite == "refuse":
                raise
            self.append_only = False

    def open(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the opening messages, up to where the assistant begins."""
        return list(self._open(tuple((m["role"], m["content"]) for m in messages)))

    def append(self, messages: Sequence[Message], ended: bool) -> list[int]:
        """Token ids that follow an assistant turn: its end (unless the policy sampled it: `ended`), the new messages,
        and the beginning of the next assistant turn."""
        tokens = list(self._append(tuple((m["role"], m["content"]) for m in messages)))
        return tokens if ended else [self.end_id, *tokens]

    def text(self, token_ids: Sequence[int]) -> str:
        """What the policy wrote in one turn, without the end-of-turn token."""
        ids = list(token_ids)
        if ids and ids[-1] == self.end_id:
            ids.pop()
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def check_episode(self, messages: Sequence[Message]) -> None:
        """Prove on a finished episode that the template renders it as it was appended; else TemplateError."""
        pieces: list[Message] = []
        expected = ""
        opened = False
        for index, message in enumerate(messages):
            pieces.append(message)
            if message["role"] != "assistant":
                continue
            before = list(messages[:index])
            if not opened:
                expected, opened = self._render(before, generate=True), True
            else:
                last = max(i for i in range(index) if messages[i]["role"] == "assistant")
                new = tuple((m["role"], m["content"]) for m in messages[last + 1 : index])
                expected += self._appended_text(new)
            expected += message["content"] + self.end_text
        if not opened:
            return
        last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
        found = self._cut(self._render(list(messages[: last + 1]), generate=False))
        if found != expected:
            raise _rewrites(expected, found)

    # How it is done

    def _render(self, messages: Sequence[Message], generate: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": m["role"], "content": m["content"]} for m in messages],
                tools=self.tools,
                tokenize=False,
                add_generation_prompt=generate,
            )
        except Exception as error:  # Jinja templates raise whatever their author wished
            roles = ", ".join(m["role"] for m in messages)
            raise TemplateError(
                f"The model's chat template fails on the roles {roles}: {error}; use another template or other roles."
            ) from error
        assert isinstance(text, str)
        return text

    def _encode_uncached(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(_whole(text), add_special_tokens=False))

    def _open_uncached(self, messages: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
        def render(pairs: Sequence[tuple[str, str]]) -> str:
            return self._render([Message(role=r, content=c) for r, c in pairs], generate=True)

        return self._tokens(render, messages)

    def _tokens(
        self, render: Callable[[Sequence[tuple[str, str]]], str], messages: Sequence[tuple[str, str]]
    ) -> tuple[int, ...]:
        """Encode what `render` writes; a special token that a message merely spells stays text.

        Such contents are encoded apart from the template around them, so that nothing that is said can end a turn.
        """
        spelled = [any(token in content for token in self.special) for _, content in messages]
        if not any(spelled):
            return self._encode(render(messages))
        marks = [f"{MARK}{index}{MARK}" for index in range(len(messages))]
        whole = render([(role, mark) for (role, _), mark in zip(messages, marks, strict=True)])
        tokens: list[int] = []
        for number, part in enumerate(re.split(f"{MARK}([0-9]+){MARK}", whole)):
            if number % 2:
                content = messages[int(part)][1]
                tokens += self.tokenizer.encode(_whole(content), add_special_tokens=False, split_special_tokens=True)
            else:
                tokens += self._encode(part)
        return tuple(tokens)

    def _append_uncached(self, messages: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
        return self._tokens(self._appended_text, messages)

    def _cut(self, text: str) -> str:
        """`text` up to and including its last end-of-turn token."""
        end = text.rfind(self.end_text)
        if end < 0:
            raise TemplateError(
                f"The chat template does not end an assistant turn with the tokenizer's {self.end_text!r}; "
                "set the tokenizer's eos_token to what ends a turn."
            )
        return text[: end + len(self.end_text)]

    def _appended_text(self, messages: Sequence[tuple[str, str]]) -> str:
        """What the template writes after an assistant turn for new messages and the next generation."""
        past = [Message(role="user", content="question"), Message(role="assistant", content="answer")]
        head = self._cut(self._render(past, generate=False))
        whole = self._render([*past, *(Message(role=r, content=c) for r, c in messages)], generate=True)
        if not whole.startswith(head):
            raise _rewrites(head, whole)
        return whole[len(head) :]

    def _prove(self, roles: Sequence[str]) -> None:
        """Render a conversation of many turns whole and piece by piece, with content that templates like to rewrite."""
        for answer in ("plain", "<think>thought</think>\n\nanswer", "  spaced \n"):
            messages = [Message(role="user", content="question")]
            for role in roles:
                messages += [Message(role="assistant", content=answer), Message(role=role, content="seen")]
            messages.append(Message(role="assistant", content=answer))
            self.check_episode(messages)


def _whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which no tokenizer reads."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _rewrites(expected: str, found: str) -> TemplateError:
    at = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), None)
    at = min(len(expected), len(found)) if at is None else at
    return TemplateError(
        f"The model's chat template rewrites history: where {expected[at : at + 40]!r} was written it later has "
        f"{found[at : at + 40]!r} (after {expected[max(0, at - 30) : at]!r}); use an append-only template or "
        "set model.on_rewrite: segment in the recipe."
    )
