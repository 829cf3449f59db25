"""RewardEnsemble: several reward models of the same thing, and the number that is safe to believe.

Invariant: a number comes out only where every member gave one; what one of them could not score, the ensemble does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from .errors import VerifierError
from .reward_model import Scorer
from .verdict import Outcome, Verdict

Combine = Literal["mean", "lower_bound"]


def combine_rewards(rewards: Sequence[float], how: Combine = "mean", k: float = 1.0) -> float:
    """The mean of the members' rewards, or mean - k * standard deviation (over the members, not their sample).

    A policy seeks out what one member overrates; members disagree there, which the lower bound charges for. Source:
    arXiv:2310.02743 (there with the variance in place of the deviation).
    """
    mean = math.fsum(rewards) / len(rewards)
    if how == "mean":
        return mean
    return mean - k * math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards))


class RewardEnsemble:
    """A Scorer and Verifier made of scorers, such as reward models that began from different seeds.

    how: see `combine_rewards`. k: deviations that the lower bound takes off, 0 or more. Verdicts: PARTIAL with the
    number; ERROR where a member says so, else UNDECIDED where one does. The evidence has every member's reward.
    """

    def __init__(self, members: Sequence[Scorer], *, how: Combine = "mean", k: float = 1.0) -> None:
        if not members:
            raise VerifierError("RewardEnsemble has no members; give at least one scorer.")
        if how not in get_args(Combine):
            raise VerifierError(f"RewardEnsemble: how = {how!r} is unknown; choose 'mean' or 'lower_bound'.")
        if not 0 <= k < math.inf:
            raise VerifierError(f"RewardEnsemble: k = {k} must be 0 or more; a negative one would pay for doubt.")
        self.members, self.how, self.k = list(members), how, k

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """The combined score of `response` as an answer to `prompt`; gold is not looked at."""
        return self.score_many([(prompt, response)])[0]

    def score_many(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """A verdict for each (prompt, response), in their order."""
        by_member = [member.score_many(pairs) for member in self.members]
        return [self._judge(verdicts) for verdicts in zip(*by_member, strict=True)]

    def _judge(self, verdicts: Sequence[Verdict]) -> Verdict:
        for outcome, make in ((Outcome.ERROR, Verdict.error), (Outcome.UNDECIDED, Verdict.undecided)):
            failed = next((verdict for verdict in verdicts if verdict.outcome is outcome), None)
            if failed is not None:
                return make(failed.reason, **failed.evidence)
        rewards = [verdict.reward for verdict in verdicts]
        value = combine_rewards(rewards, self.how, self.k)
        name = "mean" if self.how == "mean" else f"mean less {self.k:g} deviations"
        return Verdict.partial(value, f"{name} of {len(rewards)} reward models: {value:.6g}.", rewards=rewards)
