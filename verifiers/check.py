"""check_verifier: the contract of a Verifier as a suite that anyone runs on their own.

Invariant: it ends, whatever the verifier does. Every call has a deadline, and where the verifier can be rebuilt in
another process, every call is first made there, since that can be killed (tests/test_check_verifier.py).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ..sandbox.check_report import CheckReport, CheckRow
from .answer_place import AnswerPlace, contains, find_place, made_up
from .attacks import attacks, hostile
from .check_rows import JUDGING, KEEPING, ORDER, Found, row_of
from .errors import VerifierError
from .fresh_process import CannotRebuild, FreshProcess
from .observation import Asker, Call, Observation, WatchedThread
from .repeated_calls import compare, look_for_leaks, repeat_alone, repeat_in_threads
from .verifier import Verifier

MAX_ATTACKED = 8
"""So many of the pairs, drawn by the seed, are attacked; all of them must be right."""
MAX_OTHERS = 4
"""Answers of other pairs that each of them is tried with."""
MAX_LISTED = 20
"""Right answers listed beside the one that is right."""
MAX_REPEATED = 200
"""Calls that are made again, to see whether the same comes out."""
MAX_LOST = 2
"""After so many calls that did not come back, nothing more is asked."""
WARM_UP = 3
"""The first call may load something, and take so many deadlines."""

Pair = tuple[Any, str] | tuple[Any, str, str]
"""(gold, response) or (gold, response, prompt)."""


def check_verifier(
    verifier: Verifier,
    gold_pairs: Iterable[Pair],
    *,
    wrong: Iterable[Pair] = (),
    judges: bool = True,
    last_counts: bool = False,
    deadline_s: float = 10.0,
    seed: int = 0,
    name: str | None = None,
) -> CheckReport:
    """Whether a verifier keeps its contract: what is right is CORRECT, no trick is, and each call is bounded and alone.

    gold_pairs: right answers, each with a response that must be CORRECT. The right answer of one pair is a wrong answer
    for another, unless the verifier takes the two for the same both ways round. wrong: pairs that must not be CORRECT.
    judges: False for verifiers that score, such as LengthPenalty; what is about being CORRECT is then left out.
    last_counts: True where by rule the last of several answers is the answer, as of several programs; that a right one
    beside others is not CORRECT is then not asked for. deadline_s: longest time for one call. seed: of what is drawn.
    name: for the report.
    Raises VerifierError where the arguments cannot be used; whatever the verifier does is in the report.
    """
    if isinstance(verifier, type) or not isinstance(verifier, Verifier):
        raise VerifierError(f"{verifier!r:.100} is no verifier; give an object with a method verify.")
    if not 0 < deadline_s < 3600:
        raise VerifierError(f"deadline_s = {deadline_s!r} must be above 0 and below 3600 seconds.")
    golds = [find_place(*pair) for pair in _checked("gold_pairs", gold_pairs)]
    bad = [Call("wrong", *pair) for pair in _checked("wrong", wrong)]
    if not golds:
        raise VerifierError("gold_pairs is empty; give at least one right answer with a right response.")
    if bad and not judges:
        raise VerifierError("With judges=False nothing is CORRECT or not; leave `wrong` out, or judges.")
    left_out = {*JUDGING} if not judges else {"wrong"} if not bad else set()
    left_out |= {"hedged", "listed"} if last_counts else set()
    suite = _Suite(verifier, golds, bad, deadline_s, random.Random(seed), left_out)
    suite.run()
    rows = [suite.rows.get(check) or row_of(check, suite.found) for check in ORDER if check not in left_out]
    if judges and not any(call.check == "gold" and said.is_correct for call, said in suite.found):
        rows = [_untold(row) for row in rows]
    return CheckReport(name or type(verifier).__name__, tuple(rows))


def _untold(row: CheckRow) -> CheckRow:
    """A row about tricks that did not pass, where what is right does not pass either."""
    if row.name == "gold" or row.name not in JUDGING or row.status != "passed":
        return row
    return CheckRow(row.name, "skipped", "No right response is CORRECT either, so nothing can be told.")


def _checked(what: str, pairs: Iterable[Pair]) -> list[Pair]:
    found = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) not in (2, 3):
            raise VerifierError(f"{what}: {pair!r:.100} is no pair; give (gold, response) or (gold, response, prompt).")
        if not all(isinstance(text, str) for text in pair[1:]):
            raise VerifierError(f"{what}: response and prompt of {pair!r:.100} must be texts (str); correct the pair.")
        found.append(tuple(pair))
    return found


class _Stop(Exception):
    """Why nothing more is asked, in words."""


class _Suite:
    """One run over one verifier. found: what came out. rows: those that do not follow from `found` alone."""

    def __init__(
        self,
        verifier: Verifier,
        golds: Sequence[AnswerPlace],
        wrong: Sequence[Call],
        deadline_s: float,
        rng: random.Random,
        left_out: Collection[str] = (),
    ) -> None:
        self.verifier = verifier
        self.left_out = left_out
        self.golds = golds
        self.wrong = wrong
        self.deadline_s = deadline_s
        self.rng = rng
        self.found: list[Found] = []
        self.rows: dict[str, CheckRow] = {}
        self.lost = 0

    def run(self) -> None:
        """Ask everything."""
        here = WatchedThread(self.verifier)
        fresh: FreshProcess | None = None
        try:
            fresh = FreshProcess(self.verifier, [call.gold for call in self.wrong] + [p.gold for p in self.golds])
        except CannotRebuild as reason:
            self._skip("processes", f"{reason}; let it be pickled, with its class in a module")
        try:
            self._ask_all(here, fresh)
        except _Stop as reason:
            asked = {call.check for call, _ in self.found}
            for check in ORDER:
                if check not in KEEPING and check not in asked and check not in self.rows:
                    self._skip(check, str(reason))
        finally:
            here.close()
            if fresh is not None:
                fresh.close()

    def _ask_all(self, here: WatchedThread, fresh: FreshProcess | None) -> None:
        scout: Asker = fresh or here
        right = [Call("gold", place.gold, place.response, place.prompt) for place in self.golds]
        self._ask(scout, right[0], WARM_UP)
        there = self._ask_each(scout, right)
        known = [place for place, (_, said) in zip(self.golds, there, strict=True) if said.kind != "refused"]
        if not known:
            raise _Stop("the verifier takes none of the right answers, so nothing more was asked")
        attacked = self.rng.sample(known, min(len(known), MAX_ATTACKED))
        there += self._ask_each(scout, [*self.wrong, *self._attacks(scout, attacked)])
        if fresh is None:
            back = there
        else:
            self._ask_each(scout, hostile(attacked[0]))
            there = [pair for pair in there if pair[1].kind in ("judged", "malformed")]
            self._ask(here, right[0], WARM_UP)
            back = self._ask_each(here, [call for call, _ in there])
        if not back:
            raise _Stop("no call came back with a verdict, so none was made again")
        self._repeat(here, there, back)
        if fresh is None:
            self._ask_each(here, hostile(attacked[0]))

    def _repeat(self, here: WatchedThread, there: Sequence[Found], back: Sequence[Found]) -> None:
        judged = [index for index, (_, said) in enumerate(back) if said.kind == "judged"]
        sample = [back[index] for index in self.rng.sample(judged, min(len(judged), MAX_REPEATED))]
        self.rows["deterministic"] = repeat_alone(here, sample, self.deadline_s, self.rng)
        self.rows["memory"] = look_for_leaks(here, back[0][0], self.deadline_s)
        if self.rows["deterministic"].status != "passed":
            skipped = self.rows["deterministic"].status == "skipped"
            reason = "already in one thread, the same call does not give the same verdict"
            for check in ("threads", "processes"):
                self._skip(check, "no call came back with a verdict" if skipped else reason)
            return
        if "processes" not in self.rows:
            fix = "let no verdict depend on the order of a set or on hash(); sort, or use hashlib."
            pairs = [(there[index], back[index][1]) for index in judged]
            first, second = [pair for pair, _ in pairs], [said for _, said in pairs]
            passed = "calls in another process, with another hash seed, gave the same verdicts"
            self.rows["processes"] = compare("processes", first, second, passed, fix)
        self.rows["threads"] = repeat_in_threads(self.verifier, sample, 3 * self.deadline_s, self.rng)

    def _attacks(self, scout: Asker, attacked: Sequence[AnswerPlace]) -> list[Call]:
        """What must not be CORRECT. The row "other" fails where every answer of the same kind is taken for right."""
        calls: list[Call] = []
        answers = list(dict.fromkeys(place.answer for place in self.golds))
        sure = 0
        for number, place in enumerate(attacked):
            different = self._different(scout, place, calls)
            sure += any(text in different for text in [*answers, *made_up(place.answer)[:2]])
            rest = [*different[:1], *(text for text in answers if text not in (place.answer, *different[:1]))]
            rest = self.rng.sample(rest[:MAX_LISTED], min(len(rest), MAX_LISTED))
            tricks = attacks(place, different, rest, self.rng, large=number == 0)
            calls += [call for call in tricks if call.check not in self.left_out]
        if not sure:
            what = "Every answer of the same kind is taken for right, also the other way round."
            fix = "compare with the right answer; for a verifier that does not look at it, give judges=False."
            self.rows["other"] = CheckRow("other", "failed", what, fix, f"gold {place.gold!r:.80}")
        return calls

    def _different(self, scout: Asker, place: AnswerPlace, calls: list[Call]) -> list[str]:
        """Answers that are not the right one, made up where no other pair has one; the calls with them are added.

        Where the verifier takes two answers for the same both ways round, they count as the same.
        """
        others = [other for other in self.golds if not contains(place.answer, other.answer)]
        others = self.rng.sample(others, min(len(others), MAX_OTHERS))
        different: list[str] = []
        for other in others:
            call = Call("other", place.gold, place.fill(other.answer), place.prompt)
            back = Call("other", other.gold, other.fill(place.answer), other.prompt)
            if not (self._ask(scout, call).is_correct and self._ask(scout, back).is_correct):
                different.append(other.answer)
                calls += [call, Call("other", place.gold, other.response, place.prompt)]
        for text in made_up(place.answer):
            call = Call("other", place.gold, place.fill(text), place.prompt)
            back = Call("other", text, place.response, place.prompt)
            if not (self._ask(scout, call).is_correct and self._ask(scout, back).is_correct):
                different.append(text)
                calls.append(call)
        return list(dict.fromkeys(different))

    def _ask_each(self, asker: Asker, calls: Iterable[Call]) -> list[Found]:
        found = []
        for call in calls:
            found.append((call, self._ask(asker, call)))
            if found[-1][1].kind not in ("late", "died"):
                self.found.append(found[-1])
        return found

    def _ask(self, asker: Asker, call: Call, deadlines: int = 1) -> Observation:
        """What a call did; one that is lost goes on record at once."""
        said = asker.ask(call, deadlines * self.deadline_s)
        if said.kind in ("late", "died"):
            self.found.append((call, said))
            self.lost += 1
            if deadlines > 1:
                raise _Stop("the first call did not come back, so nothing more was asked")
            if self.lost > MAX_LOST:
                raise _Stop(f"{self.lost} calls did not come back, so nothing more was asked")
        return said

    def _skip(self, check: str, reason: str) -> None:
        self.rows[check] = CheckRow(check, "skipped", f"{reason[:1].upper()}{reason[1:]}.")
