"""MathVerifier: does the response state the right answer, whatever way it is written?

Invariant: it answers in bounded time and memory, from any thread, and CORRECT is said only where `compare` found a
reason. What is quick is decided where it is asked; what may take long goes to a worker that can be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from typing import Any, Literal, get_args

from ..errors import VerifierError
from ..extraction import USUAL, Rule, check_order, extract_answer
from ..verdict import Outcome, Verdict
from .compare import compare
from .errors import TooMuchWork
from .finding import Match, Rounding, Rules, Symbolic, unsure
from .pool import Job, WorkerPool, shared_pool
from .work import Work

LOCAL_WORK = 20_000
"""Operations that are done without a worker; about 20 ms."""
SHOWN_CHARS = 300
"""An extracted text is shown in the evidence up to this length."""
Gold = str | int | float | Fraction


@dataclass(frozen=True)
class MathVerifier:
    """Compares the answer in a response with the right one, as mathematics.

    order: which extraction rules apply, see `extraction.Rule`. ordered, units, percent, rounding, evaluated: what
    counts as the same, see `compare.Rules`. strict: where it cannot be decided, say WRONG instead of UNDECIDED (with
    "undecided" in the evidence, so that it can be counted). deadline_s: longest time for one answer in a worker; after
    it the verdict is UNDECIDED. pool: workers to use; None takes those that the whole process shares.
    """

    order: Sequence[Rule] = USUAL
    ordered: bool = False
    units: bool = True
    percent: Literal["hundredth", "unit"] = "hundredth"
    rounding: Rounding = "exact"
    evaluated: bool = False
    strict: bool = False
    deadline_s: float = 5.0
    pool: WorkerPool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.order, str):
            raise VerifierError(f"order = {self.order!r} is one rule; give a list of rules, such as [{self.order!r}].")
        check_order(self.order)
        object.__setattr__(self, "order", tuple(self.order))
        for name in ("ordered", "units", "evaluated", "strict"):
            if not isinstance(getattr(self, name), bool):
                raise VerifierError(f"{name} = {getattr(self, name)!r} must be true or false.")
        if self.percent not in ("hundredth", "unit"):
            raise VerifierError(f"percent = {self.percent!r} is unknown; choose 'unit' or 'hundredth'.")
        rounding: Any = self.rounding
        if rounding not in get_args(get_args(Rounding)[0]) and not (type(rounding) is int and 1 <= rounding <= 30):
            raise VerifierError(
                f"rounding = {rounding!r} is unknown; choose 'exact', 'places' or 1 to 30 significant digits."
            )
        if not 0.05 <= self.deadline_s <= 3600:
            raise VerifierError(f"deadline_s = {self.deadline_s!r} must be between 0.05 and 3600 seconds.")

    @property
    def rules(self) -> Rules:
        """What counts as the same."""
        return Rules(self.ordered, self.units, self.percent, self.rounding, self.evaluated)

    def verify(self, gold: Gold, response: str, *, prompt: str = "") -> Verdict:
        """CORRECT, WRONG or UNDECIDED; the evidence tells what was read where and which stage decided.

        Raises VerifierError where gold is empty or no text or number. ERROR where no worker could be had.
        """
        text = gold_text(gold)
        try:
            return self.judge(text, response, Work(LOCAL_WORK))
        except TooMuchWork:
            (verdict,) = (self.pool or shared_pool()).run([self._job(text, response)], self.deadline_s)
            return self._final(verdict)

    def verify_many(self, pairs: Iterable[tuple[Gold, str]], workers: int | None = None) -> list[Verdict]:
        """The verdicts of many pairs (gold, response), in their order.

        workers: None: what is quick is decided here, and what may take long is spread over the workers of the pool; n:
        everything is spread over n of them.
        """
        if workers is not None and workers < 1:
            raise VerifierError(f"workers = {workers} does nothing; give 1 or more.")
        texts = [(gold_text(gold), response) for gold, response in pairs]
        verdicts: list[Verdict | None] = [None] * len(texts)
        if workers is None:
            for index, (gold, response) in enumerate(texts):
                with contextlib.suppress(TooMuchWork):
                    verdicts[index] = self.judge(gold, response, Work(LOCAL_WORK))
        left = [index for index, verdict in enumerate(verdicts) if verdict is None]
        jobs = [self._job(*texts[index]) for index in left]
        found = (self.pool or shared_pool()).map(jobs, self.deadline_s, workers) if jobs else []
        for index, verdict in zip(left, found, strict=True):
            verdicts[index] = self._final(verdict)
        return [verdict for verdict in verdicts if verdict is not None]

    async def verify_async(self, gold: Gold, response: str) -> Verdict:
        """As `verify`, without holding up the event loop."""
        return await asyncio.to_thread(partial(self.verify, gold, response))

    def judge(self, gold: str, response: str, work: Work, symbolic: Symbolic | None = None) -> Verdict:
        """The verdict, with so much work. Raises TooMuchWork where that does not suffice."""
        if not isinstance(response, str):
            raise VerifierError(
                f"A response must be text (str), not {type(response).__name__}; give verify() a string."
            )
        found = extract_answer(response, self.order)
        if found is None:
            return Verdict.wrong(f"No answer found by the rules {', '.join(self.order)}.", expected=gold[:SHOWN_CHARS])
        try:
            finding = compare(gold, found.text, self.rules, work, symbolic)
        except TooMuchWork:
            raise
        except Exception as error:  # a fault of this verifier; a policy must not end a run by finding it
            finding = unsure("structure", f"the comparison failed ({type(error).__name__})")
        evidence = {
            "rule": found.rule,
            "text": found.text[:SHOWN_CHARS],
            "span": [found.start, found.end],
            "expected": gold[:SHOWN_CHARS],
            "stage": finding.stage,
        }
        if finding.match is Match.SAME:
            return Verdict(Outcome.CORRECT, 1.0, f"The answer is right: {finding.reason}.", evidence)
        if finding.match is Match.DIFFERENT:
            return Verdict(Outcome.WRONG, 0.0, f"The answer is wrong: {finding.reason}.", evidence)
        return self._final(Verdict(Outcome.UNDECIDED, None, f"Undecided: {finding.reason}.", evidence))

    def _job(self, gold: str, response: str) -> Job:
        if not isinstance(response, str):
            raise VerifierError(
                f"A response must be text (str), not {type(response).__name__}; give verify() a string."
            )
        options = {"order": list(self.order), **asdict(self.rules)}
        return Job(gold, response, options)

    def _final(self, verdict: Verdict) -> Verdict:
        if self.strict and verdict.outcome is Outcome.UNDECIDED:
            return Verdict.wrong(verdict.reason, **{**verdict.evidence, "undecided": True})
        return verdict


def gold_text(gold: Gold) -> str:
    """The right answer as text. VerifierError where there is none."""
    if isinstance(gold, bool) or not isinstance(gold, str | int | float | Fraction):
        raise VerifierError(f"The right answer {gold!r} is neither text nor a number; correct the task.")
    if isinstance(gold, float) and not math.isfinite(gold):
        raise VerifierError(f"The right answer {gold!r} is no number; correct the task, or give it as text.")
    try:
        text = gold.strip() if isinstance(gold, str) else str(gold)
    except ValueError as error:  # Python writes no integer of more than 4,300 digits
        raise VerifierError("The right answer has too many digits to be written down; correct the task.") from error
    if not text:
        raise VerifierError("The right answer is empty; correct the task.")
    return text


def verify_math(gold: Gold, response: str, **options: Any) -> Verdict:
    """Whether a response states the right answer, in LaTeX or plain text. options: those of MathVerifier.

    >>> verify_math(r"\\frac{1}{2}", r"So the probability is $\\boxed{0.5}$.").outcome
    <Outcome.CORRECT: 'correct'>
    """
    return MathVerifier(**options).verify(gold, response)


def verify_math_many(pairs: Iterable[tuple[Gold, str]], workers: int | None = None, **options: Any) -> list[Verdict]:
    """The verdicts of many pairs (gold, response), in their order. options: those of MathVerifier."""
    return MathVerifier(**options).verify_many(pairs, workers)


async def verify_math_async(gold: Gold, response: str, **options: Any) -> Verdict:
    """As `verify_math`, without holding up the event loop."""
    return await MathVerifier(**options).verify_async(gold, response)
