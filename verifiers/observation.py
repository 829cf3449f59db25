"""Observation: what one call of a verifier did, in a thread that may be left behind.

Invariant: whatever a verifier does (hang, raise anything, return anything) ends as an Observation, and one that is
"judged" holds a verdict that keeps the contract of Verdict.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from .errors import VerifierError
from .part import is_finite
from .verdict import Outcome, Verdict
from .verifier import Verifier

SLACK_S = 0.5
"""A call may take so much longer than its deadline."""

Kind = Literal["judged", "malformed", "refused", "raised", "late", "died"]
"""judged: a proper verdict. malformed: something else, or a verdict that breaks its contract. refused: VerifierError.
raised: any other exception. late: no answer in time. died: the process ended."""


@dataclass(frozen=True)
class Call:
    """One question to a verifier. check: the name of the check that asks it."""

    check: str
    gold: Any
    response: str
    prompt: str = ""

    @property
    def shown(self) -> str:
        """The call as an example for the reader, without what a terminal could not print."""
        return f"gold {_short(self.gold)}, response {_short(self.response)}"


@dataclass(frozen=True)
class Observation:
    """What a call did. said: the verdict as JSON text, else what went wrong, in words."""

    kind: Kind
    said: str
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def shown(self) -> str:
        """What came out, in a few words."""
        if self.outcome is None:
            return self.said
        return f"{self.outcome.name} ({_short(self.reason)})"

    @property
    def is_correct(self) -> bool:
        """Whether the verdict is CORRECT."""
        return self.outcome is Outcome.CORRECT


class Asker(Protocol):
    """Asks a verifier and waits no longer than it is told to."""

    def ask(self, call: Call, seconds: float) -> Observation:
        """What the call did; "late" where it did nothing in so many seconds."""
        ...


def observe(verifier: Verifier, call: Call) -> Observation:
    """Ask, and take down what happens."""
    try:
        verdict: object = verifier.verify(call.gold, call.response, prompt=call.prompt)
    except VerifierError as error:
        return Observation("refused", f"it raised {_described(error)}")
    except BaseException as error:  # also SystemExit, which a verifier has no business to raise
        return Observation("raised", f"it raised {_described(error)}")
    fault = _fault(verdict)
    if fault or not isinstance(verdict, Verdict):
        return Observation("malformed", fault)
    try:
        said = json.dumps(verdict.to_json(), allow_nan=False)
        again = json.dumps(Verdict.from_json(json.loads(said)).to_json(), allow_nan=False)
    except Exception as error:
        return Observation("malformed", f"the verdict cannot be written as JSON: {_described(error)}")
    if said != again:
        return Observation("malformed", "the verdict comes back from JSON as another one")
    return Observation("judged", said, verdict.outcome, verdict.reason)


def _fault(verdict: object) -> str:
    """In which way this is no proper verdict; empty where it is one."""
    if not isinstance(verdict, Verdict):
        return f"it returned {_short(verdict)}, which is {type(verdict).__name__} and no Verdict"
    parts = [("the verdict", verdict), *((f"the part {path!r}", part) for path, part in verdict.walk())]
    for what, part in parts:
        if not isinstance(part, Verdict) or not isinstance(part.outcome, Outcome):
            return f"{what} has an outcome that is no Outcome"
        if (part.value is None) != (part.outcome in (Outcome.UNDECIDED, Outcome.ERROR)):
            return f"{what} is {part.outcome.name} and has the value {part.value!r}"
        if part.value is not None and not is_finite(part.value):
            return f"{what} has the value {_short(part.value)}, which is no finite number"
        if not isinstance(part.reason, str):
            return f"{what} has a reason that is no text"
    if verdict.outcome is Outcome.CORRECT and not (verdict.value or 0.0) > 0.0:
        return f"the verdict is CORRECT and has the value {verdict.value!r}"
    return ""


class WatchedThread:
    """Asks in one thread of this process. A call that does not come back is left behind, and a new thread goes on."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self._start()

    def _start(self) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[tuple[Observation, float]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, args=(self._calls, self._found), daemon=True).start()

    def _serve(
        self, calls: queue.SimpleQueue[Call | None], found: queue.SimpleQueue[tuple[Observation, float]]
    ) -> None:
        while (call := calls.get()) is not None:
            start = time.monotonic()
            found.put((observe(self.verifier, call), time.monotonic() - start))

    def ask(self, call: Call, seconds: float) -> Observation:
        """See `Asker.ask`."""
        self._calls.put(call)
        try:
            observation, took_s = self._found.get(timeout=seconds + SLACK_S)
        except queue.Empty:
            self._start()
            return too_late(seconds)
        return observation if took_s <= seconds + SLACK_S else too_late(seconds)

    def close(self) -> None:
        """Let the thread end."""
        self._calls.put(None)


def too_late(seconds: float) -> Observation:
    """What is said of a call that did not come back."""
    return Observation("late", f"it did not return within {seconds:g} s")


def _described(error: BaseException) -> str:
    try:
        said = " ".join("".join(traceback.format_exception_only(error)).split())
    except Exception:  # an exception whose text raises
        said = type(error).__name__
    return ascii(said[:300])[1:-1]


def _short(value: object, chars: int = 160) -> str:
    """A value as Python writes it, with its middle left out where it is long."""
    try:
        cut = value if not isinstance(value, str) or len(value) <= 2 * chars else value[:chars] + value[-chars:]
        text = repr(cut)
    except Exception:
        text = f"a {type(value).__name__}"
    length = f" ({len(value):,} characters)" if isinstance(value, str) and len(text) > chars else ""
    return text if len(text) <= chars else f"{text[: chars * 2 // 3]} … {text[-chars // 3 :]}{length}"
