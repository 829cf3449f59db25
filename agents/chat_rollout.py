"""ChatRollout: episodes over a chat endpoint, for evaluation.

Invariant: the environment reads what the endpoint answered, structured tool calls as text in its own dialect; the
endpoint reads each observation as the answer to the call that it made; and where the endpoint fails the episode has
`error` and no reward (tests/test_chat_rollout.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..envs.task import Message
from ..envs.text_env import TextEnv
from ..envs.tool_call import write_call
from .engine import ChatCompletion, ChatEngine, StopReason, StructuredCall, Usage
from .rollout import Arena, EpisodeDriver, _Record
from .seeds import derive_seed


class ChatRollout(EpisodeDriver):
    """Plays episodes on a chat endpoint. The arenas need no renderer, see `Arena.for_chat`."""

    def __init__(
        self, engine: ChatEngine, arenas: dict[str, Arena], *, concurrency: int = 16, step_deadline_s: float = 60.0
    ) -> None:
        super().__init__(arenas, concurrency=concurrency, step_deadline_s=step_deadline_s)
        self.engine = engine

    @property
    def usage(self) -> Usage | None:
        return self.engine.usage

    @property
    def stopped(self) -> str | None:
        return self.engine.stopped

    async def _conversation(self, arena: Arena, env: TextEnv, record: _Record) -> None:
        await self._open(env, record)
        request = record.request
        history: list[Mapping[str, Any]] = [dict(message) for message in record.messages]
        while True:
            sampling = replace(request.sampling, seed=derive_seed(request.seed, record.turn))
            completion = with_ids(await self.engine.chat(history, env.tool_schemas, sampling), history)
            reason = completion.stop_reason
            if reason is StopReason.CONTEXT and not completion.text and not completion.tool_calls:
                return record.truncate(reason.value, env.cut(acted=False))
            record.reply(completion, action_of(completion, env))
            if reason not in (StopReason.END, StopReason.STOP):
                return record.truncate(reason.value, env.cut(acted=True))
            messages = await self._step(env, record)
            if messages is None:
                return None
            history += [said(completion), *answers(completion, messages, record.turn)]


def with_ids(completion: ChatCompletion, history: Sequence[Mapping[str, Any]]) -> ChatCompletion:
    """The completion with an id for each of its calls that no other call has; some servers leave them out."""
    taken = {call["id"] for message in history for call in message.get("tool_calls", ())}
    calls: list[StructuredCall] = []
    for call in completion.tool_calls:
        name = call.id if call.id and call.id not in taken else f"call_{len(taken)}"
        taken.add(name)
        calls.append(replace(call, id=name))
    return replace(completion, tool_calls=tuple(calls))


def action_of(completion: ChatCompletion, env: TextEnv) -> str:
    """What the endpoint answered as one text, in which the environment finds the calls."""
    calls = (write_call(call.name, call.arguments, env.tools, env.dialect) for call in completion.tool_calls)
    return "\n".join(part for part in (completion.text, *calls) if part)


def said(completion: ChatCompletion) -> dict[str, Any]:
    """The assistant's message as the endpoint is told of it again; of a call's arguments, a JSON object or none."""
    message: dict[str, Any] = {"role": "assistant", "content": completion.text}
    if completion.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _an_object(call.arguments)},
            }
            for call in completion.tool_calls
        ]
    return message


def answers(completion: ChatCompletion, messages: Sequence[Message], turn: int) -> list[dict[str, Any]]:
    """The environment's messages as the endpoint reads them: each structured call is answered once, under its id.

    Calls that stand in the text come before the structured ones. Where there are no others, tool messages answer them;
    beside others, which alone may be answered so, user messages do.
    """
    observed = [message["content"] for message in messages if message["role"] == "tool"]
    others: list[dict[str, Any]] = [dict(message) for message in messages if message["role"] != "tool"]
    ids = [call.id for call in completion.tool_calls]
    if not ids:
        found = [_tool_message(f"text_{turn}_{place}", text) for place, text in enumerate(observed)]
        return [*found, *others]
    first = max(len(observed) - len(ids), 0)
    in_text, structured = observed[:first], observed[first:]
    # Of very many calls the environment answers only some; the last answer says so.
    structured += structured[-1:] * (len(ids) - len(structured))
    found = [_tool_message(name, text) for name, text in zip(ids, structured, strict=False)]
    return [*found, *({"role": "user", "content": text} for text in in_text), *others]


def _tool_message(name: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": content}


def _an_object(arguments: str) -> str:
    """Servers that render a conversation read the arguments in it, and fail where they are anything else."""
    try:
        return arguments if isinstance(json.loads(arguments), dict) else "{}"
    except (ValueError, RecursionError):
        return "{}"
