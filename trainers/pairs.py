"""Pairs and labelled answers: what preference training and reward models learn from.

Invariant: both answers of a pair open with the same tokens and then differ, each has tokens that a policy sampled, and
none comes from an episode that the infrastructure failed (tests/test_pairs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..agents.trajectory import Episode, Trajectory
from ..sandbox.errors import LudusError

ROUNDING = 1e-9
"""Rewards of a group that are no further apart are the same."""


class PreferenceError(LudusError):
    """Pairs, labels or settings that no preference can be learnt from."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which `chosen` is the better one.

    margin: by how much, in units of the reward, 0 where nobody said. PreferenceError where the answers are the same,
    answer different prompts, or hold nothing that was sampled.
    """

    chosen: Trajectory
    rejected: Trajectory
    margin: float = 0.0

    def __post_init__(self) -> None:
        if opening(self.chosen) != opening(self.rejected):
            raise PreferenceError("The two answers of a pair follow different prompts; pair answers to the same one.")
        if _same(self.chosen, self.rejected):
            raise PreferenceError("The two answers of a pair are the same; leave the pair out.")


@dataclass(frozen=True)
class Labelled:
    """One answer and whether it is desirable, for KTO."""

    answer: Trajectory
    desirable: bool

    def __post_init__(self) -> None:
        opening(self.answer)


def opening(answer: Trajectory) -> tuple[int, ...]:
    """The tokens before the first that was sampled. PreferenceError where there is none to predict, or none before."""
    if True not in answer.mask[1:] or answer.mask[0]:
        raise PreferenceError(
            "An answer needs a prompt of at least one token and at least one sampled token; leave it out."
        )
    return answer.token_ids[: answer.mask.index(True)]


def labelled(pairs: Sequence[Pair]) -> list[Labelled]:
    """Each pair as two labelled answers, the chosen one desirable."""
    return [part for pair in pairs for part in (Labelled(pair.chosen, True), Labelled(pair.rejected, False))]


def pairs_of(episodes: Sequence[Episode]) -> list[Pair]:
    """One pair from each group of episodes whose rewards differ: the best against the worst, the first of each.

    Episodes without a reward, which the infrastructure failed, are not looked at, and neither is a pair whose answers
    are the same or follow different openings. The margin is the difference of the rewards. PreferenceError where an
    episode has several trajectories, as after a rewriting chat template: it has no one log-probability.
    """
    groups: dict[str, list[tuple[float, Trajectory]]] = {}
    for episode in episodes:
        if len(episode.trajectories) > 1:
            raise PreferenceError(
                f"The episode {episode.id} has {len(episode.trajectories)} trajectories and pairs need one; use a chat "
                "template that does not rewrite history, or one turn."
            )
        if episode.reward is not None and episode.trajectories and True in episode.trajectories[0].mask[1:]:
            groups.setdefault(episode.group, []).append((episode.reward, episode.trajectories[0]))
    found = []
    for members in groups.values():
        high, best = max(members, key=lambda member: member[0])
        low, worst = min(members, key=lambda member: member[0])
        if high - low > ROUNDING and opening(best) == opening(worst) and not _same(best, worst):
            found.append(Pair(best, worst, high - low))
    return found


def _same(first: Trajectory, second: Trajectory) -> bool:
    return (first.token_ids, first.mask) == (second.token_ids, second.mask)
