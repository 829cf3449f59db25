"""Token gradients: why each token of a trajectory got the gradient that it got.

Invariant: `gradient` is the derivative that the backward pass really found, so that what is said of a token is what
happened to it, whatever the algorithm (tests/test_token_gradients.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..sandbox.errors import LudusError
from .batch import Batch, Row

if TYPE_CHECKING:
    from .policy_step import Terms


class TokenGradientError(LudusError):
    """A token that is not there, or of which nothing was kept."""


@dataclass(frozen=True)
class TokenGradients:
    """Of each token of one trajectory, [T]; what was not sampled has 0 everywhere.

    gradient: derivative of the step's loss by the token's log-probability; negative makes the token likelier. weight:
    of the token in the step's loss. ratio: of probabilities, to the policy before the step, 1 where the loss has none.
    clip: -1 where the ratio was held at its lower bound, 1 at an upper one. correction: factor for samples of another
    policy. kl: the KL term times its coefficient, in units of the loss. whole: what the loss says of the whole
    distribution at the token, in units of the loss: the divergence from a teacher over the vocabulary, less an entropy
    bonus; `gradient` is without it, since it moves every token of the vocabulary. All are of the first optimiser step
    in which the trajectory took part.
    """

    gradient: np.ndarray
    weight: np.ndarray
    ratio: np.ndarray
    clip: np.ndarray
    correction: np.ndarray
    kl: np.ndarray
    whole: np.ndarray

    def to_json(self) -> dict[str, list[float]]:
        """Lists of numbers with six significant digits, by name."""
        return {name: [float(f"{value:.6g}") for value in values] for name, values in vars(self).items()}


@dataclass(frozen=True)
class TokenGradient:
    """Why one token got its gradient. Fields as of `TokenGradients`, and what is stored of the token itself."""

    position: int
    token_id: int
    sampled: bool
    version: int
    logprob: float
    advantage: float
    gradient: float
    weight: float
    ratio: float
    clip: float
    correction: float
    kl: float
    whole: float = 0.0

    def __str__(self) -> str:
        if not self.sampled:
            return f"Token {self.position} was given to the policy, which sampled it not; it carries no loss."
        if self.weight == 0:
            return f"Token {self.position} was left out of the loss with its whole trajectory."
        way = (
            "likelier" if self.gradient < 0 else "less likely" if self.gradient > 0 else "neither more nor less likely"
        )
        parts = [f"advantage {self.advantage:+.4g}", f"weight {self.weight:.4g}", f"ratio {self.ratio:.4g}"]
        if self.clip:
            parts.append(f"held at its {'upper' if self.clip > 0 else 'lower'} bound")
        if self.correction != 1:
            parts.append(f"correction {self.correction:.4g}")
        if self.kl:
            parts.append(f"KL term {self.kl:.4g}")
        if self.whole:
            parts.append(f"term of the whole distribution {self.whole:.4g}")
        if self.whole and not self.gradient:
            return (
                f"Token {self.position} stood where the whole distribution was taught, and not the sampled token:"
                f" {', '.join(parts)}."
            )
        return f"Token {self.position} became {way} (gradient {self.gradient:+.4g}): {', '.join(parts)}."


def gather(rows: Sequence[Row], batch: Batch, terms: Terms, into: dict[int, TokenGradients]) -> None:
    """Keep what a micro-batch found of its tokens, after its backward pass. into: by index of the row."""
    curves = terms.curves
    zero = terms.logprobs_N.detach() * 0
    slope_N = terms.logprobs_N.grad
    clip_N = curves.get("clip_fraction/high", zero) - curves.get("clip_fraction/low", zero)
    found = {
        "gradient": zero if slope_N is None else slope_N,  # none where the loss is of whole distributions
        "weight": batch.weights_N,
        "ratio": curves.get("ratio", zero + 1),
        "clip": clip_N,
        "correction": zero + 1 if terms.correction_N is None else terms.correction_N,
        "kl": zero if terms.kl_N is None else terms.kl_N,
        "whole": zero if terms.whole_N is None else terms.whole_N,
    }
    columns = {name: values_N.detach().double().cpu().numpy() for name, values_N in found.items()}
    index_N, position_N = batch.source_N2.T
    for index in np.unique(index_N):
        own = index_N == index
        empty = np.zeros(len(rows[index].trajectory.mask))
        arrays = {name: empty.copy() for name in columns}
        for name, values in columns.items():
            arrays[name][position_N[own]] = values[own]
        into[int(index)] = TokenGradients(**arrays)


def explain_token(episode: Mapping[str, Any], token: int, trajectory: int = 0) -> TokenGradient:
    """Why a token of a stored training episode got its gradient; as text, one sentence.

    episode: a row of `ludus.RunFolder.read_episodes`. token: its position in the trajectory, from 0. Raises
    TokenGradientError where there is no such token, or where the episode was not trained on.
    """
    paths = episode["trajectories"]
    if not 0 <= trajectory < len(paths):
        raise TokenGradientError(f"The episode has {len(paths)} trajectories; ask for one from 0 on, not {trajectory}.")
    path = paths[trajectory]
    if not 0 <= token < len(path["token_ids"]):
        raise TokenGradientError(
            f"The trajectory has {len(path['token_ids'])} tokens; ask for one from 0 on, not {token}."
        )
    if not episode.get("gradients") or episode["advantages"] is None:
        raise TokenGradientError(
            f"Of the episode {episode['id']} no gradients were kept; take one whose label begins with policy-, of a "
            "run that this version of Ludus trained."
        )
    kept = episode["gradients"][trajectory] or {}
    found = {f.name: float(kept[f.name][token]) if f.name in kept else 0.0 for f in fields(TokenGradients)}
    return TokenGradient(
        position=token,
        token_id=path["token_ids"][token],
        sampled=bool(path["mask"][token]),
        version=path["versions"][token],
        logprob=path["logprobs"][token],
        advantage=episode["advantages"][trajectory][token],
        **found,
    )
