"""Verifiers with one fault each, to see that check_verifier finds it; in a module that another process can import."""

from __future__ import annotations

import os
import random
import re
import time
from fractions import Fraction
from typing import Any

from ludus.verifiers import Verdict, VerifierError

PAIRS = [("42", "42"), ("7", "7"), ("1000", "1000")]


class Equal:
    """The verifier that is right; the others differ from it in one thing."""

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        return Verdict.correct("equal") if self.accepts(str(gold), response) else self.refuse(response)

    def accepts(self, gold: str, response: str) -> bool:
        return response.strip() == gold

    def refuse(self, response: str) -> Any:
        return Verdict.wrong("not equal")


# What must not be CORRECT


class Substring(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return gold in response


class LastNumber(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return re.findall(r"[0-9]+|$", response)[:-1][-1:] == [gold]


class FirstWord(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return response.split()[:1] == [gold]


class Prefix(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return bool(response.strip()) and response.strip().startswith(gold) and response.strip().isdigit()


class AnyNumber(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return response.strip().isdecimal()


class EmptyIsRight(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return response.strip() in ("", gold)


class ControlCharactersAreRight(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return response.strip("\x00").strip() in ("", gold) and response.strip(" \n\t\r\xa0\u2003\u3000") != ""


class Obedient(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return response.strip() == gold or "verdict: correct" in response.lower()


class ReadsVerdicts(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return response.strip() == gold or response.strip() == '{"value": 1}'


class DeafToNot(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return response.strip().removeprefix("not ") == gold


class Never(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return False


class WordsForNumbers(Equal):
    def accepts(self, gold: str, response: str) -> bool:
        return response.strip() in (gold, "nearly " + gold)


# What is no proper verdict, or fails


class Floats(Equal):
    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        return 1.0 if self.accepts(gold, response) else 0.0


class ErrorWorthZero(Equal):
    def refuse(self, response: str) -> Any:
        verdict = Verdict.error("cannot read it")
        object.__setattr__(verdict, "value", 0.0)
        return verdict


class CorrectWorthNothing(Equal):
    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        verdict = super().verify(gold, response)
        if verdict.value:
            object.__setattr__(verdict, "value", 0.0)
        return verdict


class EvidenceNoJson(Equal):
    def refuse(self, response: str) -> Any:
        return Verdict.wrong("not equal", share=Fraction(1, 3))


class ErrorForEmpty(Equal):
    def refuse(self, response: str) -> Any:
        return Verdict.wrong("not equal") if response.strip() else Verdict.error("the grader failed")


class RaisesOnSurrogates(Equal):
    def refuse(self, response: str) -> Any:
        return Verdict.wrong("not equal", length=len(response.encode()))


class AlwaysRaises(Equal):
    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        raise KeyError(response)


class BlamesTheResponse(Equal):
    def refuse(self, response: str) -> Any:
        if not response.strip():
            raise VerifierError("The response is empty; write one.")
        return Verdict.wrong("not equal")


class Quits(Equal):
    def refuse(self, response: str) -> Any:
        if "\x00" in response:
            raise SystemExit(3)
        return Verdict.wrong("not equal")


class Crashes(Equal):
    def refuse(self, response: str) -> Any:
        if "\x00" in response:
            os._exit(3)
        return Verdict.wrong("not equal")


class Bomb(Equal):
    def refuse(self, response: str) -> Any:
        return Verdict.wrong("not equal", size=len(bytearray(1 << 34 if "!" in response else 1)))


class RefusesItsGolds(Equal):
    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        raise VerifierError(f"The right answer {gold!r} is no date; correct the task.")


# What is not the same each time, or not bounded


class Random(Equal):
    def refuse(self, response: str) -> Any:
        return Verdict.undecided("cannot tell") if random.random() < 0.5 else Verdict.wrong("not equal")


class Counts(Equal):
    def __init__(self) -> None:
        self.calls = 0

    def refuse(self, response: str) -> Any:
        self.calls += 1
        return Verdict.wrong("not equal", calls=self.calls)


class SharesItsState(Equal):
    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        self.gold = str(gold)
        time.sleep(0.0005)
        return Verdict.correct("equal") if self.accepts(self.gold, response) else Verdict.wrong("not", gold=self.gold)


class HashSeed(Equal):
    def refuse(self, response: str) -> Any:
        return Verdict.wrong(" ".join({f"word{number}" for number in range(50)}))


class Sleeps(Equal):
    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        time.sleep(10_000)


class SleepsOverBrackets(Equal):
    def refuse(self, response: str) -> Any:
        time.sleep(10_000 if response.startswith("(((") else 0)
        return Verdict.wrong("not equal")


class SlowPattern(Equal):
    """Holds the interpreter's lock for as long as it takes, so that no thread of its process could end it."""

    def refuse(self, response: str) -> Any:
        return Verdict.wrong("not equal", matches=re.fullmatch(r"(a|aa)+", response) is not None)


class Hoards(Equal):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        self.seen.append(response + " ")
        return super().verify(gold, response)


class CachesSome(Equal):
    """Bounded, and therefore no leak."""

    def __init__(self) -> None:
        self.seen: dict[int, str] = {}

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        self.seen[len(self.seen) % 100 if len(self.seen) < 100 else hash(response) % 100] = response + " "
        return super().verify(gold, response)


class CannotBePickled(Equal):
    def __init__(self) -> None:
        self.answer = lambda: None


class SleepsAndCannotBePickled(SleepsOverBrackets):
    def __init__(self) -> None:
        self.answer = lambda: None


class Scores(Equal):
    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        return Verdict.partial(min(len(response), 100) / 100, "longer is better")
