"""TRPO: the natural gradient against the whole Fisher matrix, and a step that stays within its region."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from ludus.agents.config import TinyModel
from ludus.agents.model import create_tiny_model
from ludus.agents.trajectory import Trajectory
from ludus.trainers.algorithms import AlgorithmError, get_algorithm
from ludus.trainers.batch import Row, collate, micro_batches, pack_rows
from ludus.trainers.optimizer import NonFiniteError
from ludus.trainers.policy_step import frozen_logprobs
from ludus.trainers.scoring import distributions
from ludus.trainers.trust_region import conjugate_gradient, curvature, divergence, spread, trust_region_step

SHAPE = TinyModel(hidden_size=8, layers=1, heads=1, kv_heads=1, intermediate_size=8, initializer_range=0.3)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_conjugate_gradients_solve_a_system_in_as_many_steps_as_it_has_unknowns(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    half = torch.tensor(rng.normal(size=(size, size)))
    matrix, right = half @ half.T + torch.eye(size), torch.tensor(rng.normal(size=size))
    found = conjugate_gradient(lambda x: matrix @ x, right, 3 * size, 1e-24)
    assert torch.allclose(found, torch.linalg.solve(matrix, right), atol=1e-8)


def rows(model: torch.nn.Module, seed: int = 0, count: int = 6) -> list[Row]:
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        tokens = tuple(int(token) for token in rng.integers(7, 90, 9))
        mask = (False,) * 3 + (True,) * 3 + (False,) + (True,) * 2
        trajectory = Trajectory(tokens, mask, (-1.0,) * 9, (0,) * 9)
        found.append(Row(trajectory, rng.normal(size=9), 1 / 30, episode=index))
    olds = frozen_logprobs(model, found, 1000)  # type: ignore[arg-type]
    return [replace(row, old=old) for row, old in zip(found, olds, strict=True)]


def test_a_step_is_along_the_natural_gradient_and_within_its_region() -> None:
    """Of the output layer alone, whose Fisher matrix can be written out."""
    model = create_tiny_model(SHAPE, 0)[0]
    model.requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    found, before = rows(model), model.lm_head.weight.detach().clone()
    algorithm = get_algorithm("trpo", radius=1e-4, damping=0.01, cg_steps=400, curvature_share=1.0)

    fisher, slope = torch.zeros(before.numel(), before.numel()), torch.zeros(before.numel())
    for row in found:
        hidden = model.model(torch.tensor([row.trajectory.token_ids])).last_hidden_state[0]
        for t in np.flatnonzero(row.trajectory.mask):
            h, p = hidden[t - 1], torch.softmax(before @ hidden[t - 1], -1)
            fisher += torch.kron(torch.diag(p) - torch.outer(p, p), torch.outer(h, h)) / 30
            one = torch.nn.functional.one_hot(torch.tensor(row.trajectory.token_ids[t]), len(p))
            slope += row.advantages[t] / 30 * torch.outer(one - p, h).flatten()  # of the mean of r A, where r is 1
    natural = torch.linalg.solve(fisher + 0.01 * torch.eye(len(slope)), slope)

    curves = trust_region_step(algorithm, model, found, 40)
    step = (model.lm_head.weight.detach() - before).flatten()
    assert float(torch.cosine_similarity(step, natural, dim=0)) > 0.999
    length = float(torch.sqrt(2e-4 / (natural @ (fisher @ natural + 0.01 * natural)))) * curves["step_share"]
    assert float(step.norm()) == pytest.approx(length * float(natural.norm()), rel=0.01)
    assert 0 < curves["kl_old"] <= 1e-4 and curves["step_share"] > 0


@pytest.mark.parametrize("micro_batch_tokens", [1, 40, 1000])
def test_a_product_with_the_curvature_is_that_with_the_divergence_s_second_derivative(micro_batch_tokens: int) -> None:
    """Differentiated twice by autograd, of one batch whose graph is kept and of several whose graphs are not."""
    model = create_tiny_model(SHAPE, 0)[0].eval()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    vector = torch.tensor(np.random.default_rng(0).normal(size=sum(w.numel() for w in weights)), dtype=torch.float32)
    found = rows(model)
    with sdpa_kernel(SDPBackend.MATH):
        packs = list(micro_batches(found, micro_batch_tokens))
        batches = [collate(found, some, model.config.vocab_size, torch.device("cpu")) for some in packs]
        products = curvature(model, weights, batches)
        (whole,) = [collate(found, pack_rows(found), model.config.vocab_size, torch.device("cpu"))]
        new_NV = distributions(model, whole)
        slopes = torch.autograd.grad(divergence(new_NV.detach(), new_NV).mean(), weights, create_graph=True)
        along = (torch.cat([slope.flatten() for slope in slopes]) * vector).sum()
        expected = torch.cat([part.flatten() for part in torch.autograd.grad(along, weights)])
        for _ in range(2):
            assert torch.allclose(products(vector), expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_step_does_not_depend_on_how_it_is_cut(share: float) -> None:
    model = create_tiny_model(SHAPE, 0)[0]
    found = rows(model, count=10)
    algorithm = get_algorithm("trpo", curvature_share=share)
    steps = []
    for micro_batch_tokens in (1, 40, 1000):
        moved = copy.deepcopy(model)
        curves = trust_region_step(algorithm, moved, found, micro_batch_tokens)
        steps.append((torch.cat([w.detach().flatten() for w in moved.parameters()]), curves["step_share"]))
    before = torch.cat([w.detach().flatten() for w in model.parameters()])
    far = float((steps[0][0] - before).norm())
    assert far > 0 and len({taken for _, taken in steps}) == 1
    assert all(float((weights - steps[0][0]).norm()) < 1e-3 * far for weights, _ in steps)


@settings(max_examples=50)
@given(st.integers(1, 200), st.floats(0.001, 1))
def test_a_share_of_the_trajectories_is_spread_over_the_rollout(count: int, share: float) -> None:
    every = [
        Row(Trajectory((7, 8), (False, True), (0.0, -1.0), (0, 0)), np.zeros(2), 1.0, episode=i) for i in range(count)
    ]
    places = [row.episode for row in spread(every, share)]
    assert len(places) == max(1, round(share * count)) and places[0] == 0
    gaps = np.diff([*places, count])
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    assert spread(every, 1.0) == every


@pytest.mark.parametrize("radius", [1e-3, 1e-2, 1.0])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_a_step_of_the_whole_model_lowers_the_loss_and_stays_within_its_region(radius: float, share: float) -> None:
    model = create_tiny_model(SHAPE, 0)[0]
    found = rows(model)
    algorithm = get_algorithm("trpo", radius=radius, curvature_share=share)
    before = trust_region_step(algorithm, model, found, 1000)
    assert 0 < before["kl_old"] <= radius and before["grad_norm"] > 0
    after = trust_region_step(algorithm, copy.deepcopy(model), found, 1000)  # with the ratios of the step before
    assert after["loss"] < before["loss"]


def test_where_there_is_nothing_to_learn_the_model_stays_as_it_is() -> None:
    model = create_tiny_model(SHAPE, 0)[0]
    before = copy.deepcopy(model.state_dict())
    found = [replace(row, advantages=np.zeros(9)) for row in rows(model)]
    curves = trust_region_step(get_algorithm("trpo"), model, found, 1000)
    assert curves["step_share"] == 0 == curves["kl_old"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "option",
    [{"radius": 0.0}, {"radius": float("nan")}, {"damping": -1.0}, {"damping": float("nan")}, {"cg_steps": 0}]
    + [{"curvature_share": share} for share in (0.0, -0.1, 1.5, float("nan"))],
)
def test_a_region_that_makes_no_sense_is_refused(option: dict[str, float]) -> None:
    with pytest.raises(AlgorithmError, match="A trust region needs"):
        get_algorithm("trpo", **option)


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    model = create_tiny_model(SHAPE, 0)[0]
    found, before = rows(model), copy.deepcopy(model.state_dict())
    model.lm_head.weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(NonFiniteError, match="The gradient is not finite"):
        trust_region_step(get_algorithm("trpo"), model, found, 1000)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
