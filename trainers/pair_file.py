"""Pairs and labelled answers from JSONL files of conversations, through the renderer that the policy is played with.

A prompt is a text or a list of messages, an answer a text or a list of messages that begins and ends with the
assistant's. Each line is checked; what is wrong with it is one sentence that names file and line.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from ..agents.renderer import Renderer
from ..agents.trajectory import Trajectory
from ..envs.source import read_jsonl
from ..envs.task import Message
from .pairs import Labelled, Pair, PreferenceError

T = TypeVar("T")
ROLES = ("system", "user", "assistant", "tool")


def read_pairs(path: str | Path, renderer: Renderer, max_length: int) -> list[Pair]:
    """A pair from each line {"prompt": …, "chosen": …, "rejected": …, "margin": a number, 0 if unset}.

    max_length: tokens that prompt and answer may have together. PreferenceError, TaskError: file and line.
    """

    def pair(row: dict[str, Any], answer: Callable[[str], Trajectory]) -> Pair:
        margin = row.get("margin", 0.0)
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not abs(margin) < float("inf"):
            raise PreferenceError(f"margin is {margin!r}; give a finite number or leave it out.")
        return Pair(answer("chosen"), answer("rejected"), float(margin))

    return _read(Path(path), renderer, max_length, pair)


def read_labelled(path: str | Path, renderer: Renderer, max_length: int) -> list[Labelled]:
    """A labelled answer from each line {"prompt": …, "completion": …, "label": true or false}. Else as `read_pairs`."""

    def example(row: dict[str, Any], answer: Callable[[str], Trajectory]) -> Labelled:
        if not isinstance(row.get("label"), bool):
            raise PreferenceError(f"label is {row.get('label')!r}; give true or false.")
        return Labelled(answer("completion"), row["label"])

    return _read(Path(path), renderer, max_length, example)


def answer_trajectory(renderer: Renderer, prompt: list[Message], answer: list[Message]) -> Trajectory:
    """A conversation as a trajectory in which the assistant's turns of `answer`, with their ends, count as sampled.

    TemplateError where the chat template rewrites what it wrote in an earlier turn of the conversation.
    """
    tokens = renderer.open(prompt)
    mask = [False] * len(tokens)
    if len(answer) > 1:
        renderer.check_episode([*prompt, *answer])
    between: list[Message] = []
    for message in answer:
        if message["role"] != "assistant":
            between.append(message)
            continue
        if between:
            seen = renderer.append(between, ended=True)
            tokens, mask, between = tokens + seen, mask + [False] * len(seen), []
        # What merely spells a special token stays text, so that no answer ends its own turn.
        said = renderer.tokenizer.encode(message["content"], add_special_tokens=False, split_special_tokens=True)
        tokens, mask = [*tokens, *said, renderer.end_id], mask + [True] * (len(said) + 1)
    return Trajectory(tuple(tokens), tuple(mask), (0.0,) * len(tokens), (-1,) * len(tokens))


def _read(
    path: Path,
    renderer: Renderer,
    max_length: int,
    make: Callable[[dict[str, Any], Callable[[str], Trajectory]], T],
) -> list[T]:
    found = []
    for number, row in read_jsonl(path):

        def answer(key: str, row: dict[str, Any] = row) -> Trajectory:
            made = answer_trajectory(renderer, _prompt(row), _answer(row, key))
            if len(made.token_ids) > max_length:
                raise PreferenceError(
                    f"prompt and {key} have {len(made.token_ids)} tokens, more than engine.max_length = {max_length}; "
                    "raise it or remove the line."
                )
            return made

        try:
            found.append(make(row, answer))
        except PreferenceError as error:
            raise PreferenceError(f"{path}:{number}: {error}") from None
    if not found:
        raise PreferenceError(f"{path} is empty; give one JSON object on each line.")
    return found


def _prompt(row: dict[str, Any]) -> list[Message]:
    messages = _messages(row, "prompt", "user")
    if not messages or messages[-1]["role"] == "assistant":
        raise PreferenceError(
            "prompt must end with a message that is not the assistant's; move the rest to the answer."
        )
    return messages


def _answer(row: dict[str, Any], key: str) -> list[Message]:
    messages = _messages(row, key, "assistant")
    roles = [message["role"] for message in messages]
    turns = [role == "assistant" for role in roles]
    if not roles or not (turns[0] and turns[-1]) or any(a and b for a, b in pairwise(turns)):
        raise PreferenceError(
            f"{key} has the roles {roles}; begin and end with an assistant's message, never two in a row."
        )
    return messages


def _messages(row: dict[str, Any], key: str, role: str) -> list[Message]:
    """The value of a key as messages; a text is one of `role`."""
    value = row.get(key)
    if isinstance(value, str):
        return [Message(role=role, content=value)]
    shaped = isinstance(value, list) and all(
        isinstance(part, dict) and part.get("role") in ROLES and isinstance(part.get("content"), str) for part in value
    )
    if not shaped:
        raise PreferenceError(
            f"{key} must be a text or a list of messages with role ({', '.join(ROLES)}) and content; correct the line."
        )
    return [Message(role=part["role"], content=part["content"]) for part in value or []]
