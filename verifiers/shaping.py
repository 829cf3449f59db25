"""Potential-based shaping: a hint about progress that cannot change which policy is best.

Invariant: with gamma = 1 the terms of an episode, whose end has potential 0, add up to minus the potential of its first
state, whatever was done in between (tests/test_shaping.py).
"""

from __future__ import annotations


def shaping_term(before: float, after: float | None, gamma: float = 1.0) -> float:
    """`gamma * Phi(s') - Phi(s)`, to be added to the reward of the step from s to s'.

    before: Phi(s). after: Phi(s'), None where the episode ended there: the end has potential 0, however the episode
    ended, or a policy would gain by stopping where the potential is high. gamma: discount of the potential, 0 to 1.
    Source: Ng, Harada, Russell, "Policy invariance under reward transformations" (ICML 1999), theorem 1; for the end
    of an episode Grzes, "Reward shaping in episodic reinforcement learning" (AAMAS 2017).
    """
    return (0.0 if after is None else gamma * after) - before
