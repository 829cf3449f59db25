"""Reductions: what share of the step's loss each trajectory's tokens have.

A reduction is a weight for each trajectory, over the *whole* optimiser step, so that cutting it into micro-batches
cannot change the gradient. lengths_N: sampled tokens of each trajectory. episodes_N: the episode it belongs to, as a
number; all reductions here count episodes, and an episode's length is that of all its trajectories.
"""

from __future__ import annotations

import numpy as np


def token_mean(lengths_N: np.ndarray, episodes_N: np.ndarray) -> np.ndarray:
    """Mean over all sampled tokens of the step. Source: DAPO (arXiv:2503.14476), equation 8."""
    return np.full(len(lengths_N), 1.0 / max(lengths_N.sum(), 1))


def sequence_mean_token_mean(lengths_N: np.ndarray, episodes_N: np.ndarray) -> np.ndarray:
    """Mean over episodes of the mean over their tokens. Source: GRPO (arXiv:2402.03300), equation 3."""
    episodes, index_N = np.unique(episodes_N, return_inverse=True)
    totals = np.bincount(index_N, weights=lengths_N)
    return 1.0 / (np.maximum(totals[index_N], 1) * len(episodes))


def sequence_mean_token_sum(lengths_N: np.ndarray, episodes_N: np.ndarray) -> np.ndarray:
    """Mean over episodes of the sum over their tokens: the gradient of the log-probability of whole sequences."""
    return np.full(len(lengths_N), 1.0 / max(len(np.unique(episodes_N)), 1))


def constant_length(lengths_N: np.ndarray, episodes_N: np.ndarray, horizon: int) -> np.ndarray:
    """Sum over tokens over (episodes times `horizon` tokens). Source: Dr. GRPO (arXiv:2503.20783), appendix G."""
    return np.full(len(lengths_N), 1.0 / (max(len(np.unique(episodes_N)), 1) * horizon))
