"""Lagrangian constraints in training: what an episode is charged, and dual ascent on the price.

Invariant: the multipliers are plain numbers by the constraint's name. All episodes of a step are charged at the same
multiplier, the one that its metrics show, and the next step's follows from what this one measured, so that a run
resumed from its checkpoint goes on with the same bits (tests/test_rubric_training.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import fsum

from ..agents.trajectory import Episode
from ..verifiers.constraint import Measurement, Terms, measurements

Multipliers = Mapping[str, float]
Measured = dict[str, list[Measurement]]


def constraints_of(episode: Episode) -> dict[str, Measurement]:
    """What an episode that was judged says of each constraint, by the path of its part."""
    return {} if episode.reward is None or episode.verdict is None else measurements(episode.verdict)


def charged(episode: Episode, multipliers: Multipliers, prefix: str = "") -> Episode:
    """The episode with `-multiplier * excess` of each of its constraints in the reward of its last action.

    The amount is the named reward "PATH/charge". prefix: of the names in multipliers, before the path. An episode
    without constraints comes back as it is.
    """
    for path, found in constraints_of(episode).items():
        multiplier = multipliers.get(f"{prefix}{path}", found.terms.multiplier)
        episode = _paid(episode, f"{path}/charge", -multiplier * found.excess)
    return episode


def gather(episodes: Iterable[tuple[Episode, str]]) -> Measured:
    """Every measurement by the constraint's name, from episodes with the prefix of theirs."""
    found: Measured = {}
    for episode, prefix in episodes:
        for path, measurement in constraints_of(episode).items():
            found.setdefault(f"{prefix}{path}", []).append(measurement)
    return found


def ascend(multiplier: float, terms: Terms, excesses: Sequence[float]) -> float:
    """`clip(multiplier + learning_rate * mean(excess), 0, max_multiplier)`: one step of projected dual ascent.

    Source: Stooke, Achiam, Abbeel (arXiv:2007.03964), their controller with the integral term alone.
    """
    mean = fsum(excesses) / len(excesses)
    return min(max(multiplier + terms.learning_rate * mean, 0.0), terms.max_multiplier)


def next_multipliers(multipliers: Multipliers, measured: Measured) -> dict[str, float]:
    """The multipliers of the next step; a constraint that was not measured keeps its own."""
    after = dict(multipliers)
    for name, found in measured.items():
        terms = found[0].terms
        after[name] = ascend(after.get(name, terms.multiplier), terms, [each.excess for each in found])
    return after


def constraint_curves(multipliers: Multipliers, measured: Measured) -> dict[str, float]:
    """Of each constraint that was measured: the multiplier that was charged, the mean value, the mean excess."""
    curves: dict[str, float] = {}
    for name, found in measured.items():
        curves[f"constraint/{name}/multiplier"] = multipliers.get(name, found[0].terms.multiplier)
        curves[f"constraint/{name}/value"] = fsum(each.value for each in found) / len(found)
        curves[f"constraint/{name}/violation"] = fsum(each.excess for each in found) / len(found)
    return curves


def _paid(episode: Episode, name: str, amount: float) -> Episode:
    """The episode with an amount more in the reward of its last action."""
    assert episode.reward is not None
    *earlier, last = episode.trajectories
    steps = list(last.steps)
    steps[-1] = replace(steps[-1], reward=steps[-1].reward + amount, rewards={**steps[-1].rewards, name: amount})
    return replace(
        episode,
        reward=episode.reward + amount,
        rewards={**episode.rewards, name: amount},
        trajectories=(*earlier, replace(last, steps=tuple(steps))),
    )
