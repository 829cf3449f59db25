"""One optimiser step's loss and gradient beside TRL's, on the same model, tokens, advantages and log-probabilities."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_policy_gradient import SHAPE

from ludus.agents.model import create_tiny_model
from ludus.agents.trajectory import Trajectory
from ludus.trainers.algorithms import get_algorithm
from ludus.trainers.batch import Row
from ludus.trainers.policy_step import accumulate, weigh

trl = pytest.importorskip("trl", reason="TRL is in the extra 'dev'")
HORIZON = 9


@pytest.fixture(scope="module")
def model():
    return create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.1}), 0)


def rows(seed: int = 0) -> list[Row]:
    """Six responses to two prompts, with old and reference log-probabilities near those of the policy to come."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(6):
        prompt, answer = 5 + index % 2, int(rng.integers(2, HORIZON))
        tokens = tuple(int(token) for token in rng.integers(7, 90, prompt + answer))
        mask = np.array([False] * prompt + [True] * answer)
        sampler, old, reference = (np.where(mask, near, 0.0) for near in rng.normal(-4.5, 0.15, (3, len(mask))))
        trajectory = Trajectory(tokens, tuple(mask.tolist()), tuple(sampler), tuple([0] * len(mask)))
        found.append(Row(trajectory, np.full(len(mask), rng.normal()), 0.0, old, reference, episode=index))
    return found


def theirs(trainer: Any, found: list[Row], model: Any) -> tuple[float, torch.Tensor]:
    """TRL's loss of these rows and its gradient: prompts padded on the left, completions on the right."""
    columns: dict[str, list[torch.Tensor]] = {}
    for row in found:
        trajectory = row.trajectory
        start, stop = trajectory.mask.index(True), len(trajectory.mask)
        prompt = torch.tensor(trajectory.token_ids[:start])
        put = lambda name, values: columns.setdefault(name, []).append(values)  # noqa: E731
        gap = torch.zeros(6 - start, dtype=torch.long)
        put("prompt_ids", torch.cat([gap, prompt]))
        put("prompt_mask", torch.cat([gap, torch.ones(start, dtype=torch.long)]))
        rest = HORIZON - (stop - start)
        for name, values in (
            ("completion_ids", torch.tensor(trajectory.token_ids[start:])),
            ("completion_mask", torch.ones(stop - start, dtype=torch.long)),
            ("old_per_token_logps", torch.tensor(row.old[start:], dtype=torch.float32)),
            ("ref_per_token_logps", torch.tensor(row.reference[start:], dtype=torch.float32)),
            ("sampling_per_token_logps", torch.tensor(trajectory.logprobs[start:], dtype=torch.float32)),
        ):
            put(name, torch.cat([values, torch.zeros(rest, dtype=values.dtype)]))
        put("advantages", torch.tensor(row.advantages[start], dtype=torch.float32))
    inputs: dict[str, Any] = {name: torch.stack(values) for name, values in columns.items()}
    inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
    inputs["old_logps"] = inputs["old_per_token_logps"].sum(1)
    model.zero_grad()
    model.train()
    loss = trainer._compute_loss(model, inputs)
    loss.backward()
    return float(loss.detach()), gradient(model)


def ours(name: str, options: dict[str, Any], found: list[Row], model: Any) -> tuple[float, torch.Tensor]:
    algorithm = get_algorithm(name, **options)
    model.zero_grad()
    curves = accumulate(algorithm, model, weigh(algorithm, found), 100_000)
    return curves["loss"], gradient(model)


def gradient(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def build(kind: str, model: Any, folder: Path, **settings: Any) -> Any:
    import datasets

    module, tokenizer = model
    common = {"output_dir": str(folder), "use_cpu": True, "bf16": False, "report_to": [], "disable_tqdm": True}
    common |= {"per_device_train_batch_size": 6, "num_generations": 6, "max_completion_length": HORIZON}
    common |= {"gradient_checkpointing": False, "save_strategy": "no", "logging_strategy": "no"}
    config = getattr(trl, f"{kind}Config")(**common, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = getattr(trl, f"{kind}Trainer")(
            model=module,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=config,
            train_dataset=datasets.Dataset.from_list([{"prompt": "a"}] * 6),
            processing_class=tokenizer,
        )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


SEQUENCES = {"importance_sampling_level": "sequence", "epsilon": 0.05, "epsilon_high": 0.1}
UNBIASED = {"beta": 0.04, "use_bias_correction_kl": True, "off_policy_mask_threshold": 0.02}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "grpo": ("grpo", {"kl_coef": 0.04, "like": "trl"}, {"loss_type": "grpo", "beta": 0.04}),
    "grpo, mean over tokens": (
        "grpo",
        {"kl_coef": 0.04, "like": "trl", "reduction": "token_mean"},
        {"loss_type": "dapo", "beta": 0.04},
    ),
    "grpo, plain k3": ("grpo", {"kl_coef": 0.04}, {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": False}),
    "dr_grpo": ("dr_grpo", {"horizon": HORIZON}, {"loss_type": "dr_grpo"}),
    "dapo": ("dapo", {}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "gspo": ("gspo", {"clip_low": 0.05, "clip_high": 0.1}, {"loss_type": "grpo", **SEQUENCES}),
    "cispo": ("cispo", {"like": "trl"}, {"loss_type": "cispo", "epsilon_high": 5.0}),
    "sapo": ("sapo", {}, {"loss_type": "sapo"}),
    "v32": ("v32", {"kl_coef": 0.04, "drift": 0.02}, {"loss_type": "grpo", **UNBIASED}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_a_step_and_its_gradient_are_those_of_trl(case: str, model: Any, tmp_path: Path) -> None:
    name, options, settings = CASES[case][0], CASES[case][1], dict(CASES[case][2])
    beta = settings.pop("beta", 0.0)
    trainer = build("GRPO", model, tmp_path, beta=0.0, **settings)
    trainer.beta = beta  # given to its constructor, it would look for a reference model by the policy's name
    found = rows()
    loss, expected = theirs(trainer, found, model[0])
    got, own = ours(name, options, found, model[0])
    assert got == pytest.approx(loss, abs=1e-5)
    assert torch.allclose(own, expected, atol=1e-5 * max(1.0, float(expected.abs().max())))
    assert float(expected.abs().max()) > 1e-3


def test_rloo_with_the_conventions_of_trl(model: Any, tmp_path: Path) -> None:
    trainer = build("RLOO", model, tmp_path, beta=0.0)
    found = rows()
    loss, expected = theirs(trainer, found, model[0])
    got, own = ours("rloo", {"like": "trl"}, found, model[0])
    assert got == pytest.approx(loss, abs=1e-5)
    assert torch.allclose(own, expected, atol=1e-5 * max(1.0, float(expected.abs().max())))
