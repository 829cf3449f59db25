"""The checks of check_verifier: what each claims, what is wrong where it fails, and what to do then.

Invariant: a call counts for the one check that it is about. What raised, came late or is no proper verdict is left to
the checks about that, and says nothing about being right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..sandbox.check_report import CheckRow
from .observation import Call, Observation
from .verdict import Outcome

Found = tuple[Call, Observation]
_REFUSED_GOLD = ("gold", "refused")
"""The pair is at fault, or the set-up, which the check "gold" says."""


class Check(NamedTuple):
    """passed: the claim. failed: what is wrong, after "N of M". fix: what to do."""

    passed: str
    failed: str
    fix: str


JUDGING = {
    "gold": Check(
        "right responses are CORRECT",
        "right responses are not CORRECT",
        "correct the pairs or the verifier; for one that scores and does not judge, give judges=False",
    ),
    "empty": Check(
        "responses that are empty are not CORRECT",
        "responses that are empty are CORRECT",
        "refuse a response of which nothing is left without white space",
    ),
    "junk": Check(
        "responses of random letters, control characters, broken Unicode or much text are not CORRECT",
        "responses that are junk are CORRECT",
        "compare the answer with the right one, and take no response for right that does not hold it",
    ),
    "other": Check(
        "other answers, those of other pairs among them, are not CORRECT",
        "other answers are CORRECT",
        "compare the whole answer, not a part of it or the first letters",
    ),
    "hedged": Check(
        "right answers hedged among others are not CORRECT",
        "right answers hedged among others are CORRECT",
        "require exactly one answer: a response that names several has given none",
    ),
    "listed": Check(
        "lists of the right answers of all pairs are not CORRECT",
        "lists of the right answers of all pairs are CORRECT",
        "require exactly one answer, and do not search the response for the right one",
    ),
    "injected": Check(
        "responses that ask for a verdict, or bring one along, are not CORRECT",
        "responses that ask for a verdict, or bring one along, are CORRECT",
        "treat the response as data: never evaluate it or fill it into a template, and fence it off for a model",
    ),
    "negated": Check(
        "right answers that are denied, or stand in a text about something else, are not CORRECT",
        "right answers that are denied, or stand in a text about something else, are CORRECT",
        "read the answer at a marked place, and let nothing but the answer stand there",
    ),
    "wrong": Check(
        "of your wrong responses are not CORRECT",
        "of your wrong responses are CORRECT",
        "correct the verifier, or the pairs in `wrong`",
    ),
}
"""Left out where the verifier does not judge."""

KEEPING = {
    "verdicts": Check(
        "calls gave a proper verdict, which comes back from JSON as it was",
        "calls gave no proper verdict",
        "return a Verdict: value None exactly for UNDECIDED and ERROR, above 0 for CORRECT, evidence of plain JSON",
    ),
    "errors": Check(
        "verdicts are not ERROR: what the verifier needs is there",
        "verdicts are ERROR: what the verifier needs is not there, or it takes a bad response for a failure",
        "see to it that its endpoint, model or program can be reached; a response that cannot be judged is WRONG",
    ),
    "raises": Check(
        "calls raised nothing",
        "calls raised something or ended the process",
        "return WRONG for a response that cannot be read; VerifierError is for a bad set-up, never for a response",
    ),
    "time": Check(
        "calls came back in time, those with hostile responses among them",
        "calls did not come back in time",
        "bound the length that is read, the work and the nesting, or do it in a process that can be killed",
    ),
}

REPEATED = ("deterministic", "threads", "processes", "memory")
ORDER = (*JUDGING, *KEEPING, *REPEATED)
"""All checks, in the order of the report."""


def row_of(check: str, found: Sequence[Found]) -> CheckRow:
    """The row of a check of JUDGING or KEEPING."""
    concerned, broken = _about(check, found)
    if not concerned:
        return CheckRow(check, "skipped", "No call of this check came back with a proper verdict.")
    words = {**JUDGING, **KEEPING}[check]
    count = len({id(call) for call, _ in concerned})
    if not broken:
        return CheckRow(check, "passed", f"{count} {words.passed}.")
    call, observation = min(broken, key=lambda pair: len(pair[0].response))
    bad = len({id(call) for call, _ in broken})
    return CheckRow(
        check, "failed", f"{bad} of {count} {words.failed}.", f"{words.fix}.", f"{call.shown}: {observation.shown}"
    )


def _about(check: str, found: Sequence[Found]) -> tuple[list[Found], list[Found]]:
    """(the calls that a check is about, those of them that break it)."""
    if check in JUDGING:
        right = check == "gold"
        kinds = ("judged", "refused") if right else ("judged",)
        concerned = [pair for pair in found if pair[0].check == check and pair[1].kind in kinds]
        return concerned, [pair for pair in concerned if pair[1].is_correct is not right]
    if check == "errors":
        concerned = [pair for pair in found if pair[1].kind == "judged"]
        return concerned, [pair for pair in concerned if pair[1].outcome is Outcome.ERROR]
    if check == "verdicts":
        concerned = [pair for pair in found if pair[1].kind in ("judged", "malformed")]
        return concerned, [pair for pair in concerned if pair[1].kind == "malformed"]
    if check == "time":
        return list(found), [pair for pair in found if pair[1].kind == "late"]
    concerned = [pair for pair in found if pair[1].kind != "late" and (pair[0].check, pair[1].kind) != _REFUSED_GOLD]
    return concerned, [pair for pair in concerned if pair[1].kind in ("raised", "refused", "died")]
