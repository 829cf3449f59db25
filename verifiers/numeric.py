"""NumericVerifier: is the number that the response states exactly the right one?"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from .errors import VerifierError
from .extraction import STRICT, Rule, check_order, extract_answer
from .numbers import Percent, format_number, parse_number
from .verdict import Verdict

__all__ = ["NumericVerifier", "parse_number"]


class NumericVerifier:
    """Compares the stated number with the right one, both as exact rationals.

    order: which extraction rules apply, see `extraction.Rule`. The default is strict: `####`, `<answer>`, `\\boxed{}`,
    or a response that is nothing but the number. Adding "last" accepts the last number of any text; it is the weak
    form, meant for measuring models that were not told a format, and poor as a reward.
    units: whether a unit may follow the number ("18 eggs").
    percent: "unit" reads "50%" as 50, since word problems write their answers so; "hundredth" reads it as 1/2.
    tolerance: largest absolute difference that still counts as equal.
    """

    def __init__(
        self,
        order: Sequence[Rule] = STRICT,
        units: bool = True,
        percent: Percent = "unit",
        tolerance: Fraction | int | str = 0,
    ) -> None:
        check_order(order)
        if percent not in ("unit", "hundredth"):
            raise VerifierError(f"percent = {percent!r} is unknown; choose 'unit' or 'hundredth'.")
        self.order = tuple(order)
        self.units = units
        self.percent: Percent = percent
        self.tolerance = Fraction(tolerance)
        if self.tolerance < 0:
            raise VerifierError(f"tolerance = {tolerance} is negative; give 0 or more.")

    def verify(self, gold: str | int | float | Fraction, response: str, *, prompt: str = "") -> Verdict:
        """CORRECT or WRONG; the evidence tells which rule read what. Raises VerifierError where gold is no number."""
        right = gold if isinstance(gold, Fraction) else parse_number(str(gold), self.percent)
        if right is None:
            raise VerifierError(f"The right answer {gold!r} is not a number; correct the task.")
        found = extract_answer(response, self.order, self.units, self.percent)
        expected = format_number(right)
        if found is None:
            return Verdict.wrong(f"No answer found by the rules {', '.join(self.order)}.", expected=expected)
        evidence = {"rule": found.rule, "text": found.text, "expected": expected}
        if found.value is None:
            return Verdict.wrong("The answer is not exactly one number.", **evidence)
        evidence["extracted"] = format_number(found.value)
        if abs(found.value - right) <= self.tolerance:
            return Verdict.correct("The number is right.", **evidence)
        return Verdict.wrong("The number is not the right one.", **evidence)
