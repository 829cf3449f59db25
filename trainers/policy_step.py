"""The optimiser step of policy optimisation: rows in, accumulated gradient and curves out. Blind to the algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..agents.engine import StopReason
from ..agents.trajectory import Episode
from .algorithms import Algorithm, Tokens
from .algorithms.kl import k1, k3
from .algorithms.losses import MAX_LOG_RATIO
from .batch import Batch, Row, collate, micro_batches
from .optimizer import NonFiniteError
from .scoring import can_share_prompts, distributions, entropies, of_targets, reverse_kl, score
from .token_gradients import TokenGradients, gather

if TYPE_CHECKING:
    from transformers import PreTrainedModel


CUT = (StopReason.LENGTH.value, StopReason.CONTEXT.value)
"""Why episodes stop that ran into a limit of length; one that used up its turns was not cut."""
RATIO_PERCENTS = (1, 50, 99)
"""Which percentiles of the probability ratio have curves."""


def build_rows(algorithm: Algorithm, episodes: Sequence[Episode], advantages: list[list[np.ndarray]]) -> list[Row]:
    """One row for each trajectory that carries loss. Weights are those of a step over all these rows."""
    rows: list[Row] = []
    for index, episode in enumerate(episodes):
        if algorithm.drop_truncated and episode.stop_reason in CUT:
            continue
        paid = algorithm.kl_below is not None and episode.reward is not None and episode.reward >= algorithm.kl_below
        for trajectory, advantage in zip(episode.trajectories, advantages[index], strict=True):
            if any(trajectory.mask):
                scale = 0.0 if paid else 1.0
                rows.append(Row(trajectory, advantage, 0.0, kl_scale=scale, episode=index, name=episode.id))
    return weigh(algorithm, rows)


def weigh(algorithm: Algorithm, rows: Sequence[Row]) -> list[Row]:
    """Give rows the weights of one optimiser step that holds exactly them."""
    if not rows:
        return []
    lengths = np.array([sum(row.trajectory.mask) for row in rows])
    units = np.arange(len(rows)) if algorithm.counts == "trajectories" else np.array([row.episode for row in rows])
    weights = algorithm.reduction(lengths, units)
    return [replace(row, weight=float(weight)) for row, weight in zip(rows, weights, strict=True)]


def accumulate(
    algorithm: Algorithm,
    model: PreTrainedModel,
    rows: Sequence[Row],
    micro_batch_tokens: int,
    kl_coef: float | None = None,
    teacher: PreTrainedModel | None = None,
    keep: dict[int, TokenGradients] | None = None,
) -> dict[str, float]:
    """Add the gradient of the step's loss over `rows` to the model's and return the curves of the step.

    Curves are means over the step's tokens, and percentiles of the ratio over all of them.
    kl_coef: the algorithm's own where it is None. teacher: where the algorithm needs its distribution. keep: filled
    with why each token got its gradient, by index of the row.
    NonFiniteError where a term of the loss is not a number; it names term and token.
    """
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    ratios: list[np.ndarray] = []
    tokens = 0
    for packs in micro_batches(rows, micro_batch_tokens, can_share_prompts(model), model.config.hidden_size):
        batch = collate(rows, packs, model.config.vocab_size, device)
        terms = step_loss(algorithm, model, batch, algorithm.kl_coef if kl_coef is None else kl_coef, teacher)
        if not torch.isfinite(terms.loss):
            raise NonFiniteError(f"{_blame(rows, batch, terms)}; no step was taken and the last checkpoint stands.")
        if keep is not None:
            terms.logprobs_N.retain_grad()
        terms.loss.backward()
        if keep is not None:
            gather(rows, batch, terms, keep)
        tokens += len(batch.targets_N)
        sums["loss"] = sums.get("loss", 0.0) + float(terms.loss.detach())
        for name, value_N in terms.curves.items():
            sums[name] = sums.get(name, 0.0) + float(value_N.sum())
        if "ratio" in terms.curves:
            ratios.append(terms.curves["ratio"].cpu().numpy())
    curves = {name: value if name == "loss" else value / max(tokens, 1) for name, value in sums.items()}
    return curves | (percentiles("ratio", np.concatenate(ratios), RATIO_PERCENTS) if ratios else {})


def _blame(rows: Sequence[Row], batch: Batch, terms: Terms) -> str:
    """Which token and which term of its loss is not a finite number."""
    named = {
        "log-probability": terms.logprobs_N,
        "recorded log-probability": batch.logprobs_N,
        "log-probability before the step": batch.old_N,
        "log-probability under the other model": batch.reference_N,
        "advantage": batch.advantages_N,
        "ratio": terms.curves.get("ratio"),
        "policy loss": terms.policy_N,
        "correction": terms.correction_N,
        "KL term": terms.kl_N,
        "weighted loss": terms.loss_N * batch.weights_N,
    }
    for name, values_N in named.items():
        wrong = [] if values_N is None else (~torch.isfinite(values_N)).nonzero().flatten().tolist()
        if values_N is not None and wrong:
            row, position = batch.source_N2[wrong[0]].tolist()
            token = f"token {position} (id {int(batch.targets_N[wrong[0]])}) of {rows[row].name or 'a row'}"
            more = f", and so are {len(wrong) - 1} more" if len(wrong) > 1 else ""
            return f"The {name} of {token} is {float(values_N[wrong[0]].detach())}{more}"
    return f"The loss is {float(terms.loss.detach())}, and each of its terms is finite"


def gradient_error(
    algorithm: Algorithm,
    model: PreTrainedModel,
    rows: Sequence[Row],
    micro_batch_tokens: int,
    kl_coef: float,
    teacher: PreTrainedModel | None = None,
) -> NonFiniteError:
    """The error that names the first trajectory whose gradient is not finite. Leaves no gradient behind."""
    found = "that of no trajectory alone"
    for row in rows:
        model.zero_grad(set_to_none=True)
        accumulate(algorithm, model, [row], micro_batch_tokens, kl_coef, teacher)
        wrong = [n for n, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
        if wrong:
            found = f"first that of {row.name or 'a row'} ({sum(row.trajectory.mask)} sampled tokens), by {wrong[0]}"
            break
    model.zero_grad(set_to_none=True)
    return NonFiniteError(f"The gradient is not finite, {found}; no step was taken and the last checkpoint stands.")


def percentiles(name: str, values: np.ndarray, percents: Sequence[int]) -> dict[str, float]:
    """Curves such as `length/p90`: percentiles of the values, between two of them on the straight line."""
    found = np.percentile(values, percents).tolist()
    return {f"{name}/p{percent}": value for percent, value in zip(percents, found, strict=True)}


@dataclass(frozen=True)
class Terms:
    """What the loss of a micro-batch is made of.

    loss: its share of the step's. Of each of its N sampled tokens: logprobs_N, with their gradient; policy_N, the
    policy loss; correction_N, its factor; kl_N, the KL term times its coefficient; whole_N, what the loss says of the
    whole distribution instead of the sampled token; loss_N, all of them together, before weights; curves, by name [N].
    None where the algorithm has no such term.
    """

    loss: Tensor
    logprobs_N: Tensor
    policy_N: Tensor
    correction_N: Tensor | None
    kl_N: Tensor | None
    whole_N: Tensor | None
    loss_N: Tensor
    curves: dict[str, Tensor]


def step_loss(
    algorithm: Algorithm,
    model: PreTrainedModel,
    batch: Batch,
    kl_coef: float,
    teacher: PreTrainedModel | None = None,
    known_NV: Tensor | None = None,
) -> Terms:
    """What the micro-batch adds to the step's loss, term by term, and per-token curves [N]: entropy, KL, and others.

    The sampler is compared with the policy before the step, which had the same weights. known_NV: the model's
    distributions, where they are known.
    """
    logprobs_NV = distributions(model, batch) if known_NV is None else known_NV
    logprobs_N, entropies_N = of_targets(logprobs_NV, batch)
    apart_N = None
    if "teacher's distribution" in algorithm.needs and teacher is not None:
        with torch.no_grad():
            teacher_NV = distributions(teacher, batch)
        apart_N = reverse_kl(logprobs_NV, teacher_NV)
    old_N = logprobs_N.detach() if batch.old_N is None else batch.old_N
    tokens = Tokens(logprobs_N, old_N, batch.logprobs_N, batch.advantages_N, batch.response_N, apart_N)
    policy_N, shown = algorithm.loss(tokens)
    loss_N, correction_N, priced_N = policy_N, None, None
    if apart_N is not None:
        shown["kl_teacher"] = apart_N.detach()
    if algorithm.corrections:
        correction_N = torch.stack([correction(tokens) for correction in algorithm.corrections]).prod(0)
        loss_N = loss_N * correction_N
    if algorithm.kl is not None and kl_coef > 0:
        if algorithm.kl_to == "old":
            kl_N = algorithm.kl(old_N, logprobs_N)  # the samples are the old policy's
            shown["kl_old"] = kl_N.detach()
            priced_N = kl_coef * kl_N
        elif batch.reference_N is not None:
            if algorithm.kl_in == "loss":
                kl_N = algorithm.kl(logprobs_N, batch.reference_N)
                if algorithm.kl_weight is not None:
                    anchor_N = old_N if algorithm.kl_weight == "old" else batch.logprobs_N
                    kl_N = kl_N * (logprobs_N - anchor_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
                priced_N = kl_coef * batch.kl_scale_N * kl_N
            shown[f"kl_{algorithm.kl_to}"] = k1(logprobs_N, batch.reference_N).detach()
            shown[f"kl_{algorithm.kl_to}/k3"] = k3(logprobs_N, batch.reference_N).detach()
    if priced_N is not None:
        loss_N = loss_N + priced_N
    whole_N = apart_N
    if algorithm.entropy_coef:
        bonus_N = algorithm.entropy_coef * entropies(logprobs_NV)
        loss_N = loss_N - bonus_N
        whole_N = -bonus_N if whole_N is None else whole_N - bonus_N
    shown["entropy"] = entropies_N
    shown["kl_sampler"] = k1(batch.logprobs_N, old_N)
    shown["kl_sampler/k3"] = k3(batch.logprobs_N, old_N)
    total = (loss_N * batch.weights_N).sum()
    return Terms(total, logprobs_N, policy_N, correction_N, priced_N, whole_N, loss_N, shown)


def frozen_logprobs(model: PreTrainedModel, rows: Sequence[Row], micro_batch_tokens: int) -> list[np.ndarray]:
    """The log-probability of each token [T] of each row under `model`, 0 where the policy did not sample it."""
    return frozen_scores(model, rows, micro_batch_tokens)[0]


@torch.no_grad()
def frozen_scores(
    model: PreTrainedModel, rows: Sequence[Row], micro_batch_tokens: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Log-probability and entropy (nats) of each token [T] of each row, 0 where the policy did not sample it."""
    device = next(model.parameters()).device
    logprobs, entropies = ([np.zeros(len(row.trajectory.token_ids)) for row in rows] for _ in range(2))
    for packs in micro_batches(rows, micro_batch_tokens, can_share_prompts(model), model.config.hidden_size):
        batch = collate(rows, packs, model.config.vocab_size, device)
        for found, values_N in zip((logprobs, entropies), score(model, batch), strict=True):
            for (row, position), value in zip(batch.source_N2.tolist(), values_N.tolist(), strict=True):
                found[row][position] = value
    return logprobs, entropies
