"""Reward models: the body of a policy with a head for each quality, trained on pairs (Bradley-Terry).

A reward model is a sequence classifier of transformers, one output for each head: it is saved and loaded as any other
(`save_pretrained`), and `verifiers.reward_model.RewardModelScorer(folder, label=head)` scores with it.

Invariant: the reward of an answer is said at its last token, as the classifier says it, and depends on that answer
alone (tests/test_train_reward_model.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..agents.seeds import derive_seed
from ..agents.trajectory import Trajectory
from ..envs.source import epoch_index
from .answers import accumulate_answers, answer_row, answer_values
from .batch import Batch, Row
from .config import RewardModelConfig
from .optimizer import AnyOptimizer, apply_step, learning_rate
from .pairs import Pair, PreferenceError
from .preference_losses import bradley_terry
from .recorder import Recorder, Show
from .scoring import hidden_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def create_reward_model(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, heads: Sequence[str] = ("reward",), seed: int = 0
) -> PreTrainedModel:
    """A copy of the policy's body with a random head for each name: weights N(0, 1 / (width + 1)), no bias.

    Members of an ensemble differ by their seed. PreferenceError where names repeat or transformers has no classifier of
    this architecture. Source of the initial weights: arXiv:2009.01325.
    """
    from transformers import AutoModelForSequenceClassification

    if not heads or len(set(heads)) < len(heads):
        raise PreferenceError(f"The heads {list(heads)} must be one or more different names; correct them.")
    config: Any = copy.deepcopy(policy.config)
    config.id2label = dict(enumerate(heads))
    config.label2id = {name: index for index, name in enumerate(heads)}
    config.pad_token_id = tokenizer.pad_token_id
    config.answer_end, config.after_answer = tokenizer.eos_token_id, _after_answer(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: Any = AutoModelForSequenceClassification.from_config(
                config, attn_implementation=policy.config._attn_implementation
            )
        except ValueError as error:
            raise PreferenceError(
                f"transformers has no sequence classifier for {type(policy).__name__}; take another policy ({error})."
            ) from None
        torch.nn.init.normal_(model.score.weight, std=(policy.config.hidden_size + 1) ** -0.5)
    model.base_model.load_state_dict(policy.base_model.state_dict())
    return model.to(device=policy.device, dtype=policy.dtype).eval()


def heads_of(model: PreTrainedModel) -> list[str]:
    """The names of a reward model's heads, in the order of its outputs."""
    config: Any = model.config
    return [str(config.id2label[index]) for index in range(config.num_labels)]


def rewards_of(model: PreTrainedModel, answers: Sequence[Trajectory], micro_batch_tokens: int = 8192) -> Tensor:
    """The reward of each answer from each head [A, H], float64 on the CPU, without gradient."""
    rows = [_row(model, answer) for answer in answers]
    return answer_values(model, rows, micro_batch_tokens, _say(model))


def reward_step(
    model: PreTrainedModel, pairs: Mapping[str, Sequence[Pair]], config: RewardModelConfig
) -> dict[str, float]:
    """Accumulate the gradient of the sum over heads of weight times the mean Bradley-Terry loss of the head's pairs.

    Curves: loss, and by head (for one head without its name) accuracy and mean margin.
    """
    names = heads_of(model)
    asked = [(names.index(name), name, list(part)) for name, part in pairs.items() if part]
    rows = [_row(model, answer) for _, _, part in asked for pair in part for answer in (pair.chosen, pair.rejected)]
    curves: dict[str, float] = {}

    def loss(rewards_AH: Tensor) -> Tensor:
        total, start = torch.zeros((), dtype=torch.float64), 0
        for head, name, part in asked:
            chosen_P, rejected_P = rewards_AH[start : start + 2 * len(part), head].unflatten(0, (-1, 2)).unbind(1)
            start += 2 * len(part)
            settings = config.heads[name]
            margins_P = settings.margin * torch.tensor([pair.margin for pair in part], dtype=torch.float64)
            losses_P = bradley_terry(chosen_P, rejected_P, margins_P, settings.centring)
            total = total + settings.weight * losses_P.mean()
            place = "" if len(names) == 1 else f"/{name}"
            curves[f"accuracy{place}"] = float((chosen_P > rejected_P).double().mean())
            curves[f"margin{place}"] = float((chosen_P - rejected_P).detach().mean())
        return total

    found = accumulate_answers(model, rows, config.micro_batch_tokens, _say(model), loss)
    return {"loss": found, **curves}


def train_reward_model(
    model: PreTrainedModel,
    optimizer: AnyOptimizer,
    pairs: Mapping[str, Sequence[Pair]],
    config: RewardModelConfig,
    *,
    seed: int = 0,
    first_step: int = 0,
    recorder: Recorder,
    show: Show,
    after_step: Callable[[int], None],
) -> None:
    """Take the steps first_step … config.steps over each head's own pairs, calling `after_step(steps done)` after each.

    pairs: by head. Every epoch of a head has its own order, drawn from seed. PreferenceError where heads, pairs and
    config name different things, or a head has no pairs.
    """
    names = heads_of(model)
    if not set(names) == set(pairs) == set(config.heads):
        raise PreferenceError(
            f"The model has the heads {sorted(names)}, there are pairs for {sorted(pairs)} and settings for "
            f"{sorted(config.heads)}; name the same in all three."
        )
    empty = [name for name in names if not pairs[name]]
    if empty:
        raise PreferenceError(f"The head {empty[0]!r} has no pairs; give some or leave the head out.")
    model.train()
    for step in range(first_step, config.steps):
        chosen = {
            name: [
                pairs[name][epoch_index(cursor, len(pairs[name]), derive_seed(seed, "reward", name) % 2**31)]
                for cursor in range(step * config.batch_size, (step + 1) * config.batch_size)
            ]
            for name in names
        }
        lr = learning_rate(config.optimizer, step, config.steps)
        curves = reward_step(model, chosen, config)
        curves["grad_norm"] = apply_step(optimizer, config.optimizer, lr)
        recorder.log("reward_model", step + 1, **curves, lr=lr)
        show.update(step + 1, loss=curves["loss"])
        after_step(step + 1)
    model.eval()


def _say(model: Any) -> Callable[[Batch], Tensor]:
    return lambda batch: model.score(hidden_states(model, batch).to(model.score.weight.dtype)).float()


def _row(model: Any, answer: Trajectory) -> Row:
    """The answer as its classifier would read it, with one token more that is asked for and never fed."""
    ended = answer.token_ids[-1] == model.config.answer_end
    tokens = answer.token_ids + (tuple(model.config.after_answer) if ended else ())
    return answer_row(
        replace(
            answer,
            token_ids=(*tokens, tokens[-1]),
            mask=(False,) * len(tokens) + (True,),
            logprobs=(0.0,) * (len(tokens) + 1),
            versions=(-1,) * (len(tokens) + 1),
            kept=None,
            experts=None,
        )
    )


def _after_answer(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the chat template writes after the end of the last turn, such as a newline, at which the score is read."""
    if tokenizer.chat_template is None or tokenizer.eos_token is None:
        return []
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    end = text.rfind(tokenizer.eos_token)
    after = "" if end < 0 else text[end + len(tokenizer.eos_token) :]
    return list(tokenizer.encode(after, add_special_tokens=False)) if after else []
