"""Preference losses, reward-model losses and their gradients beside TRL's, on the same models and tokens."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_policy_gradient import SHAPE

from ludus.agents.model import create_tiny_model
from ludus.agents.trajectory import Trajectory
from ludus.trainers.config import PreferenceConfig, RewardHeadConfig, RewardModelConfig
from ludus.trainers.pairs import Labelled, Pair
from ludus.trainers.preference import mismatch, preference_step, prepare
from ludus.trainers.reward_model import create_reward_model, reward_step

trl = pytest.importorskip("trl", reason="TRL is in the extra 'dev'")
WIDER = SHAPE.model_copy(update={"initializer_range": 0.1})


def pairs(seed: int = 0) -> list[Pair]:
    """Five pairs with prompts and answers of different lengths, and margins."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(5):
        prompt = tuple(rng.integers(7, 90, rng.integers(3, 8)).tolist())
        answers = []
        for _ in range(2):
            said = tuple(rng.integers(7, 90, rng.integers(1, 9)).tolist())
            mask = (False,) * len(prompt) + (True,) * len(said)
            answers.append(Trajectory(prompt + said, mask, (0.0,) * len(mask), (-1,) * len(mask)))
        found.append(Pair(*answers, margin=float(rng.random())))
    return found


def parts(answer: Trajectory) -> tuple[list[int], list[int]]:
    """(prompt, completion)."""
    start = answer.mask.index(True)
    return list(answer.token_ids[:start]), list(answer.token_ids[start:])


def trainer(name: str, model: Any, tokenizer: Any, folder: Path, row: dict[str, Any], **settings: Any) -> Any:
    """A trainer of TRL that has read a data set of its own and is then given batches of ours."""
    import datasets

    home: Any = trl
    if name == "ORPO":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import trl.experimental.orpo as home
    common = {"output_dir": str(folder), "use_cpu": True, "bf16": False, "report_to": [], "disable_tqdm": True}
    common |= {"gradient_checkpointing": False, "save_strategy": "no", "logging_strategy": "no"}
    common |= {"per_device_train_batch_size": 5}
    extra = settings.pop("extra", {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(home, f"{name}Config")(**common, **settings)
        data = datasets.Dataset.from_list([row] * 5)
        return getattr(home, f"{name}Trainer")(
            model=model, args=config, train_dataset=data, processing_class=tokenizer, **extra
        )


def gradient(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def same(model: Any, expected: torch.Tensor, found: Any) -> None:
    """The loss and gradient of TRL are those that `found` computes."""
    loss = float(expected.detach())
    model.zero_grad()
    expected.backward()
    theirs = gradient(model)
    model.zero_grad()
    assert found()["loss"] == pytest.approx(loss, abs=1e-5)
    assert float(theirs.abs().max()) > 1e-3
    assert torch.allclose(gradient(model), theirs, atol=1e-5 * max(1.0, float(theirs.abs().max())))


def models() -> tuple[Any, Any, Any]:
    """(policy, reference, tokenizer)."""
    policy, tokenizer = create_tiny_model(WIDER, 0)
    reference = copy.deepcopy(policy).requires_grad_(False)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in reference.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return policy.train(), reference.eval(), tokenizer


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"method": "dpo", "beta": 0.3}, {"loss_type": "sigmoid", "beta": 0.3}),
        ({"method": "ipo", "beta": 0.3}, {"loss_type": "ipo", "beta": 0.3}),
        ({"method": "dpo", "average": True, "beta": 2.0}, {"loss_type": "sigmoid_norm", "beta": 2.0}),
    ],
    ids=["dpo", "ipo", "dpo of means"],
)
def test_dpo_and_ipo_are_those_of_trl(options: dict[str, Any], settings: dict[str, Any], tmp_path: Path) -> None:
    policy, reference, tokenizer = models()
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    theirs = trainer("DPO", policy, tokenizer, tmp_path, row, extra={"ref_model": reference}, **settings)
    rows = [dict(zip(("prompt_ids", "chosen_ids"), parts(pair.chosen), strict=True)) for pair in pairs()]
    rows = [{**row, "rejected_ids": parts(pair.rejected)[1]} for row, pair in zip(rows, pairs(), strict=True)]
    loss = theirs._compute_loss(policy, theirs.data_collator(rows), False)
    config = PreferenceConfig(steps=1, micro_batch_tokens=40, **options)
    same(policy, loss, lambda: preference_step(policy, prepare(pairs(), config, reference), config))


def test_smoothed_dpo_is_trls_aot_of_a_single_pair(tmp_path: Path) -> None:
    """Of TRL's losses this one smooths labels as conservative DPO does; it sorts a batch, and one pair is sorted."""
    policy, reference, tokenizer = models()
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    settings = {"loss_type": "aot", "beta": 0.3, "label_smoothing": 0.2, "extra": {"ref_model": reference}}
    theirs = trainer("DPO", policy, tokenizer, tmp_path, row, **settings)
    (pair,) = pairs()[:1]
    (prompt, chosen), (_, rejected) = parts(pair.chosen), parts(pair.rejected)
    batch = theirs.data_collator([{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}])
    config = PreferenceConfig(steps=1, beta=0.3, label_smoothing=0.2)
    loss = theirs._compute_loss(policy, batch, False)
    same(policy, loss, lambda: preference_step(policy, prepare([pair], config, reference), config))


def test_kto_is_that_of_trl_mismatched_answers_included(tmp_path: Path) -> None:
    policy, reference, tokenizer = models()
    row = {"prompt": "a", "completion": "b", "label": True}
    settings = {"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.7}
    theirs = trainer("KTO", policy, tokenizer, tmp_path, row, extra={"ref_model": reference}, **settings)
    answers = [pair.chosen for pair in pairs()]
    labels = [True, False, True, True, False]
    rows = []
    for answer, other, label in zip(answers, mismatch(answers), labels, strict=True):
        prompt, completion = parts(answer)
        assert parts(other)[0] == prompt
        rows.append({"prompt_ids": prompt, "completion_ids": completion, "KL_completion_ids": parts(other)[1]})
        rows[-1]["label"] = label
    said = [row["completion_ids"] for row in rows]
    assert [row["KL_completion_ids"] for row in rows] == [said[-1], *said[:-1]], "as TRL rotates them"
    loss = theirs._compute_loss(policy, theirs.data_collator(rows), False)
    assert theirs._metrics["train"]["kl"][0] > 0, "z has its part in the comparison"
    config = PreferenceConfig(method="kto", steps=1, micro_batch_tokens=40, **settings)
    examples = [Labelled(answer, label) for answer, label in zip(answers, labels, strict=True)]
    same(policy, loss, lambda: preference_step(policy, prepare(examples, config, reference), config))


def orpo_batch(found: list[Pair]) -> dict[str, torch.Tensor]:
    batch = {}
    for name in ("chosen", "rejected"):
        answers = [getattr(pair, name) for pair in found]
        width = max(len(answer.mask) for answer in answers)
        columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for answer in answers:
            gap = width - len(answer.mask)
            prompt, completion = parts(answer)
            columns["input_ids"].append([*answer.token_ids, *[0] * gap])
            columns["attention_mask"].append([1] * len(answer.mask) + [0] * gap)
            columns["labels"].append([-100] * len(prompt) + completion + [-100] * gap)
        batch |= {f"{name}_{key}": torch.tensor(value) for key, value in columns.items()}
    return batch


def test_orpo_like_trl_is_that_of_trl_and_differs_only_in_the_likelihood(tmp_path: Path) -> None:
    policy, _, tokenizer = models()
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    theirs = trainer("ORPO", policy, tokenizer, tmp_path, row, beta=0.3)
    batch = orpo_batch(pairs())
    config = PreferenceConfig(method="orpo", like="trl", steps=1, micro_batch_tokens=40, beta=0.3)
    same(
        policy,
        theirs.compute_loss(policy, batch),
        lambda: preference_step(policy, prepare(pairs(), config, None), config),
    )
    # Its answers alone, one by one, have the likelihood of the paper.
    own = PreferenceConfig(method="orpo", steps=1, beta=0.3)
    losses = []
    for pair in pairs():
        ratio = float(theirs.get_batch_loss_metrics(policy, orpo_batch([pair]))[1]["log_odds_ratio"])
        chosen = float(theirs.concatenated_forward(policy, orpo_batch([pair]))[0].detach())
        losses.append(-chosen - 0.3 * ratio)
    found = preference_step(policy, prepare(pairs(), own, None), own, learn=False)
    assert found["loss"] == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.parametrize("margin", [0.0, 1.0])
@pytest.mark.parametrize("centring", [0.0, 0.05])
def test_the_loss_of_a_reward_model_is_that_of_trl(margin: float, centring: float, tmp_path: Path) -> None:
    policy, tokenizer = create_tiny_model(WIDER, 0)
    model = create_reward_model(policy, tokenizer).train()
    row = {"chosen": "ab", "rejected": "ac"}
    settings = {"center_rewards_coefficient": centring} if centring else {}
    theirs = trainer("Reward", model, tokenizer, tmp_path, row, **settings)
    rows: list[dict[str, Any]] = []
    for pair in pairs():
        rows.append({"chosen_ids": list(pair.chosen.token_ids), "rejected_ids": list(pair.rejected.token_ids)})
        if margin:
            rows[-1]["margin"] = pair.margin
    heads = {"reward": RewardHeadConfig(margin=margin, centring=centring)}
    config = RewardModelConfig(steps=1, heads=heads, micro_batch_tokens=40)
    loss = theirs.compute_loss(model, theirs.data_collator(rows))
    same(model, loss, lambda: reward_step(model, {"reward": pairs()}, config))
