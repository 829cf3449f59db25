"""Rubrics: verifiers made of named verifiers. WeightedSum adds, Gate and Sequential ask only as far as it makes sense,
Ensemble asks several about the same thing.

Invariant: each is itself a Verifier, what every child said is a part of the verdict, and a failure is never a number:
where a child that counts is ERROR, so is the whole, with the child's name in its reason (tests/test_rubric.py).

A child that raises something is ERROR, too; only VerifierError, a wrong set-up, passes through. Children get the same
gold answer and prompt. What was not asked is a part with the reason "not asked".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from .constraint import Constraint
from .errors import VerifierError
from .part import ask, check_children, first_error, is_finite, is_penalty, not_asked
from .verdict import Outcome, Verdict
from .verifier import Verifier

Weighted = Mapping[str, Verifier | tuple[Verifier, float]]
"""Children by name, each alone (weight 1; a Constraint: 0) or with its weight, any finite number."""

How = Literal["mean", "minimum"]


class WeightedSum:
    """The sum of weight * reward over its children.

    A child that is UNDECIDED counts 0. A contribution above 0 is a credit, one below 0 a penalty. A child of weight 0
    is only recorded: it decides nothing, and its ERROR leaves the total alone. A Constraint has weight 0, but its ERROR
    counts, since the trainer has a price to charge. The first row that applies decides:

    | children that count | outcome | value |
    |---|---|---|
    | one is ERROR | ERROR | none |
    | all that earn CORRECT, no penalty, none UNDECIDED | CORRECT | the sum |
    | one UNDECIDED, no credit and no penalty | UNDECIDED | none |
    | a credit, or one UNDECIDED | PARTIAL | the sum |
    | else: no credit, all decided | WRONG | the sum, 0 or less |

    Those that earn have a positive weight and are no penalties (LengthPenalty, RepetitionPenalty: `penalty = True`).
    normalise: divide by the sum of their weights, so that where everything is right the value is 1.
    """

    def __init__(self, children: Weighted, *, normalise: bool = False) -> None:
        self.children, self.weights = _weighted("WeightedSum", children)
        self.normalise = normalise
        if not any(self.weights.values()):
            raise VerifierError("WeightedSum: no child counts; give at least one a weight other than 0.")
        self._earning = [n for n, c in self.children.items() if self.weights[n] > 0 and not is_penalty(c)]
        self._scale = math.fsum(self.weights[name] for name in self._earning) if normalise else 1.0
        if not 0 < self._scale < math.inf:
            raise VerifierError("WeightedSum: normalise needs positive weights with a finite sum; leave it out.")

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """Ask every child and add up."""
        parts = {name: ask(child, gold, response, prompt) for name, child in self.children.items()}
        evidence = {"weights": dict(self.weights)}
        counted = {name: part for name, part in parts.items() if self.weights[name]}
        binding = {n: p for n, p in parts.items() if n in counted or isinstance(self.children[n], Constraint)}
        failure = first_error(binding)
        if failure is not None:
            return Verdict(Outcome.ERROR, None, failure, evidence, parts)
        paid = {name: self.weights[name] * part.reward for name, part in counted.items()}
        value = _sum(paid.values()) / self._scale
        if not math.isfinite(value):
            return Verdict(Outcome.ERROR, None, "The weighted sum is out of range.", evidence, parts)
        credit, penalty = any(each > 0 for each in paid.values()), any(each < 0 for each in paid.values())
        unsure = [name for name, part in counted.items() if part.outcome is Outcome.UNDECIDED]
        right = bool(self._earning) and all(parts[name].outcome is Outcome.CORRECT for name in self._earning)
        reason = ", ".join(f"{n} undecided" if n in unsure else f"{n} {each:+g}" for n, each in paid.items())
        if unsure and not credit and not penalty:
            return Verdict(Outcome.UNDECIDED, None, reason, evidence, parts)
        if right and not penalty and not unsure:
            outcome = Outcome.CORRECT
        else:
            outcome = Outcome.PARTIAL if credit or unsure else Outcome.WRONG
        return Verdict(outcome, value, reason, evidence, parts)


class Gate:
    """One child must be CORRECT before the others are asked; those then count as in a WeightedSum.

    gate: the name of that child, which takes no weight. otherwise: the value where the gate is shut.

    | gate | outcome and value |
    |---|---|
    | CORRECT | those of the WeightedSum of the others |
    | WRONG, PARTIAL | `otherwise`, WRONG where that is 0 or less and else PARTIAL; the others are not asked |
    | UNDECIDED | UNDECIDED; the others are not asked |
    | ERROR | ERROR; the others are not asked |
    """

    def __init__(self, gate: str, children: Weighted, *, otherwise: float = 0.0, normalise: bool = False) -> None:
        if not isinstance(children, Mapping) or gate not in children or len(children) < 2:
            raise VerifierError(f"Gate needs the child {gate!r} and at least one more to ask behind it; add them.")
        if isinstance(children[gate], tuple):
            raise VerifierError(f"Gate: the gate {gate!r} decides and adds nothing; leave its weight out.")
        if not is_finite(otherwise):
            raise VerifierError(f"Gate: otherwise = {otherwise!r} is no finite number; give one.")
        self.gate = gate
        self.child: Verifier = check_children("Gate", {gate: children[gate]})[gate]
        self.others = WeightedSum({n: c for n, c in children.items() if n != gate}, normalise=normalise)
        self.otherwise = float(otherwise)

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """Ask the gate, and the others where it is open."""
        opened = ask(self.child, gold, response, prompt)
        if opened.outcome is Outcome.CORRECT:
            rest = self.others.verify(gold, response, prompt=prompt)
            return Verdict(rest.outcome, rest.value, rest.reason, rest.evidence, {self.gate: opened, **rest.parts})
        parts = {self.gate: opened, **{name: not_asked() for name in self.others.children}}
        reason = f"{self.gate}: {opened.reason}"
        if opened.value is None:
            return Verdict(opened.outcome, None, reason, {}, parts)
        outcome = Outcome.PARTIAL if self.otherwise > 0 else Outcome.WRONG
        return Verdict(outcome, self.otherwise, reason, {}, parts)


class Sequential:
    """Asks its children in their order and stops at the first that is not CORRECT.

    | children | outcome and value |
    |---|---|
    | all CORRECT | CORRECT, the value of the last |
    | else | those of the first that is not CORRECT; later ones are not asked |
    """

    def __init__(self, children: Mapping[str, Verifier]) -> None:
        self.children = check_children("Sequential", children)

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """Ask as far as everything is right."""
        parts: dict[str, Verdict] = {}
        for name, child in self.children.items():
            last = parts[name] = ask(child, gold, response, prompt)
            if last.outcome is not Outcome.CORRECT:
                break
        reason = f"{name}: {last.reason}"
        rest = {name: not_asked() for name in self.children if name not in parts}
        return Verdict(last.outcome, last.value, reason, {}, {**parts, **rest})


class Ensemble:
    """Several verifiers of the same thing: their mean, or their minimum, which is the conservative form.

    "mean" has the truth table of a WeightedSum with equal weights that add up to 1. "minimum" says what its lowest
    child says, where UNDECIDED counts 0; of equally low ones the first in the order WRONG, PARTIAL, UNDECIDED:

    | children, for "minimum" | outcome | value |
    |---|---|---|
    | one is ERROR | ERROR | none |
    | all CORRECT | CORRECT | the least |
    | else | that of the lowest (PARTIAL, where that one is CORRECT) | its value, none for UNDECIDED |

    A majority is the mean with a threshold: of verdicts that are 1 or 0, more than half are 1 where the mean is above
    0.5.
    """

    def __init__(self, children: Mapping[str, Verifier], *, how: How = "mean") -> None:
        self.children = check_children("Ensemble", children)
        if how not in get_args(How):
            raise VerifierError(f"Ensemble: how = {how!r} is unknown; choose 'mean' or 'minimum'.")
        self.how: How = how
        if how == "mean":
            self._mean = WeightedSum({name: (child, 1.0) for name, child in self.children.items()}, normalise=True)

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """Ask every child."""
        if self.how == "mean":
            found = self._mean.verify(gold, response, prompt=prompt)
            reason = found.reason if found.value is None else f"mean {found.value:g} of {', '.join(self.children)}"
            return Verdict(found.outcome, found.value, reason, {}, found.parts)
        parts = {name: ask(child, gold, response, prompt) for name, child in self.children.items()}
        failure = first_error(parts)
        if failure is not None:
            return Verdict(Outcome.ERROR, None, failure, {}, parts)
        order = (Outcome.WRONG, Outcome.PARTIAL, Outcome.UNDECIDED, Outcome.CORRECT)
        name = min(parts, key=lambda each: (parts[each].reward, order.index(parts[each].outcome)))
        lowest = parts[name]
        right = all(part.outcome is Outcome.CORRECT for part in parts.values())
        outcome = Outcome.PARTIAL if lowest.outcome is Outcome.CORRECT and not right else lowest.outcome
        return Verdict(outcome, lowest.value, f"{name}: {lowest.reason}", {}, parts)


def _weighted(rubric: str, children: object) -> tuple[dict[str, Verifier], dict[str, float]]:
    """(children, weights), both by name. Raises VerifierError where something cannot be used."""
    given = dict(children) if isinstance(children, Mapping) else {}
    alone: dict[str, Any] = {}
    weights: dict[str, float] = {}
    for name, entry in given.items():
        has_weight = isinstance(entry, tuple) and len(entry) == 2
        child, weight = entry if has_weight else (entry, 0.0 if isinstance(entry, Constraint) else 1.0)
        if not is_finite(weight):
            raise VerifierError(f"{rubric}: the weight {weight!r} of {name!r} is no finite number; give one.")
        if isinstance(child, Constraint) and weight:
            raise VerifierError(f"{rubric}: the constraint {name!r} has its price from training; leave its weight out.")
        alone[name], weights[name] = child, float(weight)
    return check_children(rubric, alone), weights


def _sum(values: Any) -> float:
    try:
        return math.fsum(values) + 0.0
    except (OverflowError, ValueError):  # an infinity, or a sum that is one
        return math.inf
