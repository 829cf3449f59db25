"""Muon, alone and beside AdamW: equal to PyTorch's own where that computes in more bits, and whole after a resume."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ludus.agents.config import TinyModel
from ludus.agents.model import create_tiny_model
from ludus.trainers.config import OptimizerConfig
from ludus.trainers.muon import Muon, orthogonalize
from ludus.trainers.optimizer import Together, apply_step, build_optimizer

SHAPE = TinyModel(hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=64)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(2, 40), st.integers(2, 40), st.integers(0, 2**31), st.floats(1e-4, 1e4))
def test_orthogonalized_matrices_keep_their_directions_and_lose_their_lengths(
    count: int, rows: int, columns: int, seed: int, scale: float
) -> None:
    matrices = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    found = orthogonalize(matrices)
    u, lengths, vh = torch.linalg.svd(matrices, full_matrices=False)
    # In the basis of its own singular vectors the result is diagonal, its entries positive and near one …
    inside = u.mT @ found @ vh.mT
    diagonal = inside.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(inside, torch.diag_embed(diagonal), atol=2e-2, rtol=0)
    # … but where a length was next to nothing, which five iterations cannot raise that far.
    long = lengths > 0.02 * lengths.norm(dim=1, keepdim=True)
    assert (diagonal[long] > 0.5).all() and (diagonal < 1.3).all()


@pytest.mark.parametrize("shape", [(12, 12), (24, 8), (8, 24)])
def test_steps_are_those_of_torch_s_muon_up_to_its_bfloat16(shape: tuple[int, int]) -> None:
    torch_muon = getattr(torch.optim, "Muon", None)
    if torch_muon is None:
        pytest.skip("this PyTorch has no Muon to compare with")
    generator = torch.Generator().manual_seed(1)
    ours = nn.Parameter(torch.randn(shape, generator=generator))
    theirs = nn.Parameter(ours.detach().clone())
    optimizers = (
        Muon([ours], lr=0.1, weight_decay=0.1),
        torch_muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="original"),
    )
    for _ in range(4):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=0)


def test_matrices_of_a_shape_are_stepped_together_as_they_would_be_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    whole = [nn.Parameter(torch.randn(6, 9, generator=generator)) for _ in range(3)]
    alone = [nn.Parameter(p.detach().clone()) for p in whole]
    for one, other in zip(whole, alone, strict=True):
        one.grad = torch.randn(6, 9, generator=generator)
        other.grad = one.grad.clone()
    Muon(whole).step()
    for parameter in alone:
        Muon([parameter]).step()
    for one, other in zip(whole, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_muon_steps_the_matrices_of_the_blocks_and_adamw_everything_else() -> None:
    model, _ = create_tiny_model(SHAPE, 0)
    optimizer = build_optimizer(model, OptimizerConfig(lr=1e-3, muon_lr=0.02))
    assert isinstance(optimizer, Together)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_part = [{names[id(p)] for group in part.param_groups for p in group["params"]} for part in optimizer.parts]
    assert by_part[0] == {name for name in names.values() if ".layers." in name and "proj.weight" in name}
    assert by_part[0] | by_part[1] == set(names.values()) and not by_part[0] & by_part[1]


def give_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_one_learning_rate_drives_both() -> None:
    config = OptimizerConfig(lr=1e-3, muon_lr=0.02)
    model, _ = create_tiny_model(SHAPE, 0)
    optimizer = build_optimizer(model, config)
    give_gradients(model, 0)
    apply_step(optimizer, config, 0.5e-3)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.5e-3, 0.5e-3])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_both_go_on_after_a_resume_as_if_nothing_had_happened() -> None:
    config = OptimizerConfig(lr=1e-3, muon_lr=0.02, weight_decay=0.01)
    model, _ = create_tiny_model(SHAPE, 0)
    optimizer = build_optimizer(model, config)
    for step in range(2):
        give_gradients(model, step)
        apply_step(optimizer, config, 1e-3)
    resumed = copy.deepcopy(model)
    again = build_optimizer(resumed, config)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net, its in ((model, optimizer), (resumed, again)):
        give_gradients(net, 7)
        apply_step(its, config, 2e-3)
    assert all(map(torch.equal, model.state_dict().values(), resumed.state_dict().values()))
