"""Preference learning: DPO, IPO, KTO and ORPO on whole answers, beside a frozen reference.

Invariant: everything that the loss of a step needs of the reference is known before the first gradient, and the
gradient does not depend on how the step is cut (tests/test_preference.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..agents.seeds import derive_seed
from ..agents.trajectory import Trajectory
from ..envs.source import epoch_index
from .answers import accumulate_answers, answer_row, answer_values, logprobs_of
from .batch import Row
from .config import PreferenceConfig
from .optimizer import AnyOptimizer, apply_step, learning_rate
from .pairs import Labelled, Pair, PreferenceError, opening
from .preference_losses import dpo, ipo, kto, orpo
from .recorder import Recorder, Show

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Examples: TypeAlias = Sequence[Pair] | Sequence[Labelled]
"""Pairs, or for KTO labelled answers."""


@dataclass(frozen=True)
class PreferenceBatch:
    """The answers of one optimiser step, with what the reference says of them.

    rows: P chosen, then P rejected answers, and with orpo like TRL the P chosen once more with their prompts; of kto
    the P answers. desirable_P: of kto. reference_A: the reference's log-probability of each row; zero where there is
    no reference. mismatched, mismatched_reference_M: answers to other prompts, of kto.
    """

    rows: list[Row]
    reference_A: Tensor
    desirable_P: Tensor | None = None
    mismatched: list[Row] | None = None
    mismatched_reference_M: Tensor | None = None


def check_examples(examples: Examples, config: PreferenceConfig, reference: PreTrainedModel | None) -> None:
    """PreferenceError where examples, method and reference do not fit together."""
    method = config.method
    if not examples:
        raise PreferenceError("There is nothing to learn from; give at least one pair, or for kto labelled answers.")
    wanted = Labelled if method == "kto" else Pair
    if not all(isinstance(example, wanted) for example in examples):
        fix = "make them with labelled(pairs)" if method == "kto" else "choose method kto or give pairs"
        raise PreferenceError(f"{method} learns from {'labelled answers' if method == 'kto' else 'pairs'}; {fix}.")
    if method == "kto" and len({example.desirable for example in examples if isinstance(example, Labelled)}) == 1:
        raise PreferenceError("kto needs both desirable and undesirable answers; add some of the other kind.")
    if method == "orpo" and reference is not None:
        raise PreferenceError("orpo has no reference; give reference=None.")
    if method != "orpo" and reference is None:
        raise PreferenceError(f"{method} measures from a reference; give a frozen copy of the policy as reference.")


def prepare(examples: Examples, config: PreferenceConfig, reference: PreTrainedModel | None) -> PreferenceBatch:
    """The answers of one optimiser step, scored by the reference."""
    answers, labels = [], []
    for example in examples:
        answers.append(example.chosen if isinstance(example, Pair) else example.answer)
        labels.append(isinstance(example, Labelled) and example.desirable)
    answers += [example.rejected for example in examples if isinstance(example, Pair)]
    if config.like == "trl":
        chosen = answers[: len(examples)]
        answers += [replace(answer, mask=(False,) + (True,) * (len(answer.mask) - 1)) for answer in chosen]
    rows = [answer_row(answer) for answer in answers]
    frozen = _logprobs(reference, rows, config)
    if config.method != "kto":
        return PreferenceBatch(rows, frozen)
    mismatched = [answer_row(answer) for answer in mismatch(answers)]
    return PreferenceBatch(rows, frozen, torch.tensor(labels), mismatched, _logprobs(reference, mismatched, config))


def mismatch(answers: Sequence[Trajectory]) -> list[Trajectory]:
    """Each prompt with the answer to another: of the nearest before it, around the corner, that has another prompt."""
    found = []
    for index, own in enumerate(answers):
        prompt = opening(own)
        others = (answers[index - back] for back in range(1, len(answers)))
        other = next((answer for answer in others if opening(answer) != prompt), None)
        if other is not None:
            start = len(opening(other))
            mask = (False,) * len(prompt) + other.mask[start:]
            blank, rest = (0.0,) * len(mask), (-1,) * len(mask)
            found.append(Trajectory(prompt + other.token_ids[start:], mask, blank, rest))
    return found


def preference_step(
    model: PreTrainedModel, batch: PreferenceBatch, config: PreferenceConfig, learn: bool = True
) -> dict[str, float]:
    """Accumulate the gradient of the mean loss over the batch, unless it is only to be measured; curves of the step.

    loss; chosen_reward, rejected_reward: mean implicit rewards, beta times the log-probability less the reference's;
    margin: their difference; accuracy: share of pairs whose chosen answer has the higher one, of kto share of answers
    on the right side of z. Of a kind of which the batch has none there is no curve.
    """
    far = None
    if batch.mismatched is not None:
        assert batch.mismatched_reference_M is not None
        far = _logprobs(model, batch.mismatched, config) - batch.mismatched_reference_M
        far = torch.zeros(1, dtype=torch.float64) if len(far) == 0 else far
    curves: dict[str, float] = {}

    def loss(sums_A: Tensor) -> Tensor:
        ratios_A = _per_answer(sums_A, batch.rows, config) - batch.reference_A
        losses_P, rewards_P, right_P, chosen_P = _losses(config, batch, ratios_A, sums_A, far)
        curves["accuracy"] = float(right_P.double().mean())
        for name, kind_P in (("chosen_reward", chosen_P), ("rejected_reward", ~chosen_P)):
            if kind_P.any():
                curves[name] = float(rewards_P[kind_P].mean())
        return losses_P.mean()

    say = logprobs_of(model)
    if learn:
        curves["loss"] = accumulate_answers(model, batch.rows, config.micro_batch_tokens, say, loss)
    else:
        curves["loss"] = float(loss(answer_values(model, batch.rows, config.micro_batch_tokens, say)))
    if {"chosen_reward", "rejected_reward"} <= curves.keys():
        curves["margin"] = curves["chosen_reward"] - curves["rejected_reward"]
    return curves


def evaluate_preference(
    model: PreTrainedModel, examples: Examples, config: PreferenceConfig, reference: PreTrainedModel | None = None
) -> dict[str, float]:
    """The curves of `preference_step` over examples, such as held-out ones, without learning from them."""
    check_examples(examples, config, reference)
    model.eval()
    return preference_step(model, prepare(examples, config, reference), config, learn=False)


def train_preference(
    model: PreTrainedModel,
    optimizer: AnyOptimizer,
    examples: Examples,
    config: PreferenceConfig,
    *,
    reference: PreTrainedModel | None = None,
    seed: int = 0,
    first_step: int = 0,
    recorder: Recorder,
    show: Show,
    after_step: Callable[[int], None],
) -> None:
    """Take the steps first_step … config.steps over the examples, calling `after_step(steps done)` after each.

    reference: a frozen copy of the policy before training; none for orpo. Every epoch has its own order, drawn from
    seed. Logs the curves of `preference_step`, grad_norm and lr. PreferenceError where the parts do not fit together.
    """
    check_examples(examples, config, reference)
    model.train()
    for step in range(first_step, config.steps):
        cursors = range(step * config.batch_size, (step + 1) * config.batch_size)
        order = derive_seed(seed, "preference") % 2**31
        chosen = [examples[epoch_index(cursor, len(examples), order)] for cursor in cursors]
        lr = learning_rate(config.optimizer, step, config.steps)
        curves = preference_step(model, prepare(chosen, config, reference), config)  # type: ignore[arg-type]
        curves["grad_norm"] = apply_step(optimizer, config.optimizer, lr)
        recorder.log("preference", step + 1, **curves, lr=lr)
        show.update(step + 1, loss=curves["loss"], accuracy=curves["accuracy"])
        after_step(step + 1)
    model.eval()


def _losses(
    config: PreferenceConfig, batch: PreferenceBatch, ratios_A: Tensor, sums_A: Tensor, far_M: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses [P], implicit rewards of the answers [A], which examples are right [P], which answers are chosen [A]."""
    rewards_A = (config.beta * ratios_A).detach()
    if far_M is not None:
        assert batch.desirable_P is not None
        weights = (config.desirable_weight, config.undesirable_weight)
        losses_P = kto(ratios_A, batch.desirable_P, far_M, config.beta, *weights)
        right_P = (ratios_A > far_M.mean().clamp(min=0)) == batch.desirable_P
        return losses_P, rewards_A, right_P, batch.desirable_P
    pairs = len(ratios_A) // (3 if config.like == "trl" else 2)
    chosen_P, rejected_P = ratios_A[:pairs], ratios_A[pairs : 2 * pairs]
    if config.method == "dpo":
        losses_P = dpo(chosen_P, rejected_P, config.beta, config.label_smoothing)
    elif config.method == "ipo":
        losses_P = ipo(chosen_P, rejected_P, config.beta)
    else:
        lengths_A = _lengths(batch.rows)
        nll_P = -sums_A[:pairs] / lengths_A[:pairs]
        if config.like == "trl":
            nll_P = (-sums_A[2 * pairs :].sum() / lengths_A[2 * pairs :].sum()).expand(pairs)
        losses_P = orpo(chosen_P, rejected_P, nll_P, config.beta)
    kinds_A = torch.arange(2 * pairs) < pairs
    return losses_P, rewards_A[: 2 * pairs], chosen_P > rejected_P, kinds_A


def _logprobs(model: PreTrainedModel | None, rows: list[Row], config: PreferenceConfig) -> Tensor:
    """The log-probability of each answer [A] under a model, without gradient; zeros where there is none."""
    if model is None or not rows:
        return torch.zeros(len(rows), dtype=torch.float64)
    return _per_answer(answer_values(model, rows, config.micro_batch_tokens, logprobs_of(model)), rows, config)


def _per_answer(sums_A: Tensor, rows: list[Row], config: PreferenceConfig) -> Tensor:
    return sums_A / _lengths(rows) if config.mean_tokens else sums_A


def _lengths(rows: list[Row]) -> Tensor:
    """Sampled tokens of each answer [A]."""
    return torch.from_numpy(np.array([sum(row.trajectory.mask) for row in rows], dtype=np.float64))
