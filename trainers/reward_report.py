"""What a reward model is worth on held-out pairs: accuracy, and what it goes by besides quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .config import RewardModelConfig
from .pairs import Pair, PreferenceError
from .preference_losses import bradley_terry
from .reward_model import heads_of, rewards_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class RewardReport:
    """One head on held-out pairs.

    accuracy: share of pairs whose chosen answer has the higher reward; ties count half. loss: mean Bradley-Terry loss.
    margin: mean of chosen less rejected. mean: of all rewards, which centring holds near 0.

    length_correlation: of rewards with lengths in sampled tokens, over all answers. length_bias: of the differences of
    both within pairs, which leaves out what a prompt does to its two answers. longer_chosen: share of pairs whose
    chosen answer is the longer one, ties half: the accuracy of a model that goes by length alone. Correlations are
    Pearson's, 0 where one side does not vary.

    position_bias: accuracy where chosen answers are scored first less that where they are scored last. It is measured
    and should be 0: the model reads one answer at a time.
    """

    pairs: int
    accuracy: float
    loss: float
    margin: float
    mean: float
    length_correlation: float
    length_bias: float
    longer_chosen: float
    position_bias: float


def reward_reports(
    model: PreTrainedModel, pairs: Mapping[str, Sequence[Pair]], config: RewardModelConfig
) -> dict[str, RewardReport]:
    """A report for each head on pairs of its own. PreferenceError where a head is unknown or has no pairs."""
    names = heads_of(model)
    found = {}
    for name, part in pairs.items():
        if name not in names:
            raise PreferenceError(f"The model has no head {name!r}; name one of {', '.join(names)}.")
        if not part:
            raise PreferenceError(f"The head {name!r} has no held-out pairs; give some or leave it out.")
        answers = [*(pair.chosen for pair in part), *(pair.rejected for pair in part)]
        forth = rewards_of(model, answers, config.micro_batch_tokens)[:, names.index(name)]
        back = rewards_of(model, answers[::-1], config.micro_batch_tokens)[:, names.index(name)].flip(0)
        chosen, rejected = forth.unflatten(0, (2, -1)).numpy()
        lengths = np.array([sum(answer.mask) for answer in answers], dtype=float).reshape(2, -1)
        settings = config.heads.get(name)
        margins = torch.tensor([pair.margin * (settings.margin if settings else 0.0) for pair in part])
        centring = settings.centring if settings else 0.0
        losses = bradley_terry(torch.from_numpy(chosen), torch.from_numpy(rejected), margins, centring)
        found[name] = RewardReport(
            pairs=len(part),
            accuracy=higher(chosen, rejected),
            loss=float(losses.mean()),
            margin=float(np.mean(chosen - rejected)),
            mean=float(forth.mean()),
            length_correlation=correlation(forth.numpy(), lengths.ravel()),
            length_bias=correlation(chosen - rejected, lengths[0] - lengths[1]),
            longer_chosen=higher(lengths[0], lengths[1]),
            position_bias=higher(chosen, rejected) - higher(*back.unflatten(0, (2, -1)).numpy()),
        )
    return found


def higher(first: np.ndarray, second: np.ndarray) -> float:
    """Share of places at which `first` is the higher one; ties count half."""
    return float(np.mean((first > second) + 0.5 * (first == second)))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation, 0 where one of the two does not vary."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
