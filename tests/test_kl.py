"""KL terms: values by hand, expected gradients by adding up over a vocabulary, and what the trainer makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import exp
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train import Notes, Run, ended, one_turn
from torch import Tensor

from ludus.algorithm_choice import chosen_algorithm
from ludus.recipe import make_recipe
from ludus.run_folder import RunFolder
from ludus.train import train_recipe
from ludus.trainers.algorithms import AlgorithmError, get_algorithm
from ludus.trainers.algorithms.kl import FORMS, k1, k2, k3, k3_straight
from ludus.trainers.algorithms.variations import vary
from ludus.trainers.checkpoint import list_checkpoints
from ludus.trainers.config import PolicyConfig

LOGITS, REFERENCE = (torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))


def expected_gradient(term: Callable[[Tensor, Tensor], Tensor], weighed: bool = False) -> Tensor:
    """Of a KL term in the loss, over all six tokens that there are; weighed: by the ratio to the sampler."""
    logits = LOGITS.clone().requires_grad_()
    logprobs, reference = torch.log_softmax(logits, -1), torch.log_softmax(REFERENCE, -1)
    value = term(logprobs, reference)
    if weighed:
        value = value * (logprobs - logprobs.detach()).exp()
    (found,) = torch.autograd.grad((logprobs.detach().exp() * value).sum(), logits)
    return found


def gradient_of_the_divergence() -> Tensor:
    logits = LOGITS.clone().requires_grad_()
    logprobs, reference = torch.log_softmax(logits, -1), torch.log_softmax(REFERENCE, -1)
    (found,) = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits)
    return found


@pytest.mark.parametrize(
    ("form", "weighed"), [("k2", False), ("k1_straight", False), ("k3_straight", False), ("k1", True), ("k3", True)]
)
def test_the_expected_gradient_is_that_of_the_divergence(form: str, weighed: bool) -> None:
    assert torch.allclose(expected_gradient(FORMS[form], weighed), gradient_of_the_divergence(), atol=1e-12)


def test_the_expected_gradient_of_k1_is_zero_and_that_of_k3_another() -> None:
    assert torch.allclose(expected_gradient(k1), torch.zeros(6, dtype=torch.float64), atol=1e-12)
    assert not torch.allclose(expected_gradient(k3), gradient_of_the_divergence(), atol=0.05)


@pytest.mark.parametrize("form", ["k1_straight", "k3_straight"])
def test_a_straight_through_form_has_the_value_of_one_and_the_gradient_of_k2(form: str) -> None:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.1, -1.0, -0.5], dtype=torch.float64)
    found = FORMS[form](logprobs, reference)
    expected = {"k1_straight": [0.1, -1.0, 0.0], "k3_straight": [0.0048374, exp(1) - 2, 0.0]}[form]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    found.sum().backward()
    assert logprobs.grad is not None and logprobs.grad.tolist() == pytest.approx([0.1, -1.0, 0.0])


def test_k3_is_held_at_its_clip_and_has_no_gradient_there() -> None:
    """At differences of 1 and 2 k3 is e - 2 and e^2 - 3."""
    logprobs = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    reference = torch.zeros(2, dtype=torch.float64)
    held = k3(logprobs, reference, clip=2.0)
    assert held.tolist() == pytest.approx([exp(1) - 2, 2.0])
    held.sum().backward()
    assert logprobs.grad is not None and logprobs.grad.tolist() == pytest.approx([1 - exp(1), 0.0])
    assert k3(torch.tensor([-9.0]), torch.tensor([0.0])).tolist() == [10.0]
    assert k3_straight(torch.tensor([-9.0]), torch.tensor([0.0]), clip=3.0).tolist() == [3.0]


@pytest.mark.parametrize("form", [k2, k3, partial(k3, clip=0.3)])
def test_gradient_equals_finite_differences(form: Callable[..., Tensor]) -> None:
    reference = torch.log_softmax(REFERENCE, -1)
    logprobs = torch.log_softmax(LOGITS, -1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: form(x, reference), (logprobs,), eps=1e-7)


def test_the_term_of_a_preset_can_be_another() -> None:
    changed = get_algorithm("v32", kl_form="k3_straight", k3_clip=5, kl_weight="none", kl_target=0.02)
    assert changed.kl is not None and changed.kl_weight is None and changed.next_kl_coef is not None
    assert changed.kl(torch.tensor([-9.0]), torch.tensor([0.0])).tolist() == [5.0]
    assert changed.next_kl_coef(0.1, 1.0) == pytest.approx(0.1 * 1.02)
    assert get_algorithm("grpo", kl_form="k1", kl_weight="sampler").kl is k1
    assert get_algorithm("grpo", kl_form="k2").kl is k2


def test_a_term_of_one_s_own_keeps_its_form_where_only_its_price_changes() -> None:
    def own(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
        return (logprobs_N - reference_N).abs()

    changed = vary(replace(get_algorithm("grpo"), kl=own), {"kl_target": 0.1, "kl_weight": "old"})
    assert changed.kl is own and changed.next_kl_coef is not None and changed.kl_weight == "old"


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("grpo", {"kl_form": "k4"}, r"grpo.kl_form = 'k4' must be one of k1, k2, k3, k1_straight, k3_straight"),
        ("grpo", {"kl_form": "k1"}, "expected gradient of k1 in the loss is zero"),
        ("grpo", {"kl_form": "k2", "kl_weight": "old"}, "the gradient of k2 is that of the divergence as it stands"),
        ("v32", {"kl_form": "k3_straight"}, "the gradient of k3_straight is that of the divergence as it stands"),
        ("grpo", {"kl_form": "k2", "k3_clip": 5.0}, "k3_clip holds k3, and the KL term is k2"),
        ("grpo", {"k3_clip": 0}, "k3_clip = 0 must be above 0 nats"),
        ("grpo", {"kl_target": 0.0}, "kl_target = 0.0 must be above 0 nats a token"),
        ("grpo", {"kl_target": True}, "kl_target = True must be a number"),
        ("kdrl", {"kl_target": 0.1}, "the price of the KL term follows a rule of its own"),
        ("dapo", {"kl_form": "k2"}, "dapo has no KL term that kl_form could change"),
        ("rloo", {"kl_target": 0.1}, "rloo has no KL term that kl_target could change; set kl_coef above 0"),
        (
            "rloo",
            {"kl_coef": 0.1, "kl_form": "k1_straight"},
            "k1_straight is a form of gradient, and a reward",
        ),
        ("rloo", {"kl_coef": 0.1, "kl_form": "k3"}, "k3 in the reward is biased"),
        (
            "reinforce++",
            {"kl_form": "k3"},
            r"pays its KL term in the reward, and k3 in the reward is biased; leave kl_form out, or choose grpo or"
            r" reinforce\+\+_baseline",
        ),
        ("ppo_kl", {"kl_form": "k2"}, "divergence from the old policy, which is k3; leave kl_form out"),
        ("trpo", {"kl_form": "k2"}, "trpo has no KL term that kl_form could change; leave kl_form out"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(AlgorithmError, match=says):
        get_algorithm(name, **options)


@pytest.mark.parametrize(("algorithm", "target"), [("grpo", 1e-9), ("rloo", 1e-9), ("grpo", 1e9)])
def test_the_price_follows_its_target_and_is_remembered(algorithm: str, target: float) -> None:
    """A divergence far from its target changes the price by 2% a step; what was never measured changes nothing."""
    options = {"kl_coef": 0.1, "kl_target": target}
    with ended(Run(("vowels", one_turn(), 1.0), algorithm=algorithm, options=options, steps=4)) as run:
        rows = run.train()
        (last,) = [run.trainer.state["kl_coef"]]  # type: ignore[index]
    prices = [row["kl_coef"] for row in rows]
    assert prices[0] == 0.1
    for row, price, following in zip(rows, prices, [*prices[1:], last], strict=True):
        up = row["kl_reference"] / target - 1
        assert following == pytest.approx(price * (1 + 0.1 * min(max(up, -0.2), 0.2)))
    assert prices[-1] != 0.1


RECIPE = {
    "name": "renewed",
    "seed": 3,
    "threads": 1,
    "model": {"tiny": {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate_size": 64}},
    "envs": [{"name": "ludus/WordMath-v0", "options": {"system_prompt": "", "levels": [1]}}],
    "engine": {"slots": 16, "max_length": 256},
    "sampling": {"max_tokens": 4},
    "policy": {
        "algorithm": "grpo",
        # The entropy bonus moves the policy, whatever it is paid.
        "options": {"kl_coef": 0.5, "kl_target": 0.01, "entropy_coef": 1.0},
        "steps": 5,
        "groups": 2,
        "group_size": 2,
        "reference_every": 2,
    },
    "eval": {"tasks": 1, "every": 100},
    "checkpoint": {"every": 3},
}


def test_a_run_with_a_renewed_reference_resumes_to_the_same_weights(tmp_path: Path) -> None:
    """Stopped after step 3, one step after the reference moved."""

    def train(folder: Path, steps: int, resume: bool = False) -> tuple[dict[str, Tensor], list[float]]:
        recipe = make_recipe({**RECIPE, "policy": {**RECIPE["policy"], "steps": steps}}, "test")  # type: ignore[dict-item]
        with RunFolder.resume(folder) if resume else RunFolder.create(recipe, folder) as run:
            train_recipe(recipe, run, resume=resume, display=Notes())  # type: ignore[arg-type]
            far = [row["kl_reference/k3"] for row in run.metrics() if row["phase"] == "policy"]
        return load_file(list_checkpoints(folder / "checkpoints")[-1].path / "model.safetensors"), far

    whole, far = train(tmp_path / "whole", 5)
    train(tmp_path / "cut", 3)
    resumed, again = train(tmp_path / "cut", 5, resume=True)
    assert far == again and far[2] < 1e-9 < far[1] and far[3] > 1e-9
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_reference_that_nobody_measures_from_is_not_renewed() -> None:
    with pytest.raises(AlgorithmError, match="dapo measures no divergence from a reference; remove"):
        chosen_algorithm(PolicyConfig(algorithm="dapo", steps=1, reference_every=2))


def test_the_reference_is_renewed_every_so_many_steps() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), options={"kl_coef": 0.1}, steps=4, reference_every=2)) as run:
        rows = run.train()
        same = zip(run.model.parameters(), run.trainer.reference.parameters(), strict=True)  # type: ignore[union-attr]
        assert all(torch.equal(one, other) for one, other in same)
    far = [row["kl_reference/k3"] for row in rows]
    assert far[0] > 1e-3 and far[1] > 1e-7 and far[3] > 1e-7  # `ended` made another policy of the reference's twin
    assert far[2] == pytest.approx(0, abs=1e-9)
