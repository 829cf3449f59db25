"""Constraint: a measure that must stay on one side of a bound on average, at a price that training finds.

Invariant: the verdict holds the raw measure and no price. What an episode is charged, -multiplier * excess, and dual
ascent on the multiplier are the trainer's (trainers/constraints.py), so an evaluation never depends on a multiplier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .errors import VerifierError
from .part import ask, check_children, is_finite
from .verdict import Outcome, Verdict
from .verifier import Verifier

MEASURED = "measured"
"""The name of a constraint's only part: what its child said."""
_EVIDENCE = "constraint"


@dataclass(frozen=True)
class Terms:
    """How the price of a constraint moves. All are rewards per unit of the measure, learning_rate that per unit too.

    multiplier: the price of the first step. learning_rate: of dual ascent, 0 for a fixed price. max_multiplier: the
    highest price, which bounds what an infeasible constraint can do to the objective.
    """

    multiplier: float
    learning_rate: float
    max_multiplier: float


@dataclass(frozen=True)
class Measurement:
    """What one verdict says of one constraint. excess: by how much `value` is beyond the bound, negative within it."""

    value: float
    excess: float
    terms: Terms


class Constraint:
    """Asks a child for a measure (its value, in any unit) and compares it with a bound: `at_most` or `at_least`.

    | child | Constraint |
    |---|---|
    | a value within the bound | CORRECT, 1 |
    | a value beyond the bound | WRONG, 0 |
    | UNDECIDED | UNDECIDED: neither charged nor counted in the mean |
    | ERROR | ERROR |

    The child's verdict is the part "measured". In a WeightedSum or behind a Gate a constraint takes no weight: it adds
    nothing to the value, and the trainer charges the episode -multiplier * (value - bound), for `at_least`
    -multiplier * (bound - value). The constraint is thus on the *mean* measure of the policy: an episode within the
    bound earns as much per unit as one beyond it pays. Elsewhere in a rubric it is an ordinary verifier.
    multiplier, learning_rate, max_multiplier: see `Terms`.
    Source: Lagrangian relaxation of constrained MDPs (Altman, 1999), as in Ray, Achiam, Amodei, "Benchmarking Safe
    Exploration in Deep Reinforcement Learning" (2019), and Stooke, Achiam, Abbeel (arXiv:2007.03964).
    """

    def __init__(
        self,
        child: Verifier,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        learning_rate: float,
        max_multiplier: float,
        multiplier: float = 0.0,
    ) -> None:
        check_children("Constraint", {MEASURED: child})
        if (at_most is None) == (at_least is None):
            raise VerifierError("A Constraint has one bound; give either at_most or at_least.")
        bound = at_most if at_most is not None else at_least
        assert bound is not None
        numbers = {"bound": bound, "learning_rate": learning_rate, "max_multiplier": max_multiplier}
        for name, value in {**numbers, "multiplier": multiplier}.items():
            if not is_finite(value):
                raise VerifierError(f"Constraint: {name} = {value!r} is no finite number; give one.")
            if value < 0 and name != "bound":
                raise VerifierError(f"Constraint: {name} = {value} is negative; give 0 or more.")
        if multiplier > max_multiplier:
            raise VerifierError(
                f"Constraint: multiplier = {multiplier} exceeds max_multiplier = {max_multiplier}; raise the second."
            )
        self.child = child
        self.bound = float(bound)
        self.is_upper = at_most is not None
        self.terms = Terms(float(multiplier), float(learning_rate), float(max_multiplier))

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """Whether the measure of this response is within the bound."""
        measured = ask(self.child, gold, response, prompt)
        parts = {MEASURED: measured}
        evidence = {
            _EVIDENCE: {
                "at_most" if self.is_upper else "at_least": self.bound,
                "multiplier": self.terms.multiplier,
                "learning_rate": self.terms.learning_rate,
                "max_multiplier": self.terms.max_multiplier,
            }
        }
        if measured.value is None:
            return Verdict(measured.outcome, None, f"{MEASURED}: {measured.reason}", evidence, parts)
        excess = _excess(measured.value, self.bound, self.is_upper)
        if not math.isfinite(excess):
            return Verdict(Outcome.ERROR, None, f"{MEASURED}: {measured.value:g} is out of range.", evidence, parts)
        side = "at most" if self.is_upper else "at least"
        if excess <= 0:
            return Verdict(Outcome.CORRECT, 1.0, f"{measured.value:g} is {side} {self.bound:g}.", evidence, parts)
        reason = f"{measured.value:g} is not {side} {self.bound:g}."
        return Verdict(Outcome.WRONG, 0.0, reason, evidence, parts)


def measurements(verdict: Verdict) -> dict[str, Measurement]:
    """What a verdict says of each constraint among its parts, by path; those without a measure are left out."""
    found: dict[str, Measurement] = {}
    for path, part in verdict.walk():
        terms, measured = part.evidence.get(_EVIDENCE), part.parts.get(MEASURED)
        # No response makes parts, so that none passes for a constraint through the evidence of a verifier.
        if part.value is None or measured is None or measured.value is None or not isinstance(terms, dict):
            continue
        upper = "at_most" in terms
        bound = terms["at_most" if upper else "at_least"]
        prices = Terms(terms["multiplier"], terms["learning_rate"], terms["max_multiplier"])
        found[path] = Measurement(measured.value, _excess(measured.value, bound, upper), prices)
    return found


def _excess(value: float, bound: float, is_upper: bool) -> float:
    return value - bound if is_upper else bound - value
