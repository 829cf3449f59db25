"""Muon and AdamW in 8 bits: near to PyTorch's own where that computes in other bits, and whole after a resume."""

from __future__ import annotations

import copy
import io
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import Notes
from torch import nn

from ludus.agents.config import TinyModel
from ludus.agents.model import create_tiny_model
from ludus.recipe import make_recipe
from ludus.run_folder import RunFolder
from ludus.train import train_recipe
from ludus.trainers.config import OptimizerConfig
from ludus.trainers.muon import Muon, orthogonalize
from ludus.trainers.optimizer import OptimizerError, Together, apply_step, build_optimizer, load_state

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


# --- AdamW in 8 bits -----------------------------------------------------------------------------------------------

EIGHT = OptimizerConfig(kind="adamw_8bit", lr=1e-2, weight_decay=0.01)
WIDE = TinyModel(hidden_size=64, layers=1, heads=4, kv_heads=2, intermediate_size=96)
"""Wide enough that matrices have the 4,096 weights below which bitsandbytes keeps 32 bits."""


def walk(config: OptimizerConfig, steps: int, stop: int | None = None) -> tuple[nn.Module, Any]:
    """A model led towards zero by noisy gradients; at step `stop` the optimizer is saved and made anew."""
    model, _ = create_tiny_model(WIDE, 0)
    optimizer = build_optimizer(model, config)
    for step in range(steps):
        if step == stop:
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            optimizer = build_optimizer(model, config)
            load_state(optimizer, torch.load(file, weights_only=True))
        give_gradients(model, step)
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(0.1).add_(parameter.detach())
        apply_step(optimizer, config, 1e-2)
    return model, optimizer


def test_8_bit_states_are_small_and_lead_where_those_of_32_bits_do() -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is in the extra 'bnb'")
    start, _ = create_tiny_model(WIDE, 0)
    plain, _ = walk(EIGHT.model_copy(update={"kind": "adamw"}), 40)
    found, optimizer = walk(EIGHT, 40)
    large = [p for p in found.parameters() if p.numel() >= 4096]
    assert large and all(optimizer.state[p]["state1"].dtype == torch.uint8 for p in large)
    apart, moved = (
        sum(float((p - q).detach().square().sum()) for p, q in zip(one.parameters(), two.parameters(), strict=True))
        for one, two in ((plain, found), (plain, start))
    )
    assert 0 < apart < 0.05 * moved


@pytest.mark.parametrize("muon_lr", [None, 0.02])
def test_8_bit_states_go_on_after_a_resume_as_if_nothing_had_happened(muon_lr: float | None) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is in the extra 'bnb'")
    config = EIGHT.model_copy(update={"muon_lr": muon_lr})
    whole, resumed = walk(config, 6)[0], walk(config, 6, stop=3)[0]
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


def test_8_bits_without_the_library_or_on_a_device_that_it_does_not_serve_are_refused(monkeypatch) -> None:
    model, _ = create_tiny_model(SHAPE, 0)
    with pytest.raises(OptimizerError, match="the model is on the cpu; choose adamw_8bit or adamw"):
        build_optimizer(model, OptimizerConfig(kind="paged_adamw_8bit"))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "bitsandbytes", None)
        with pytest.raises(OptimizerError, match=r"pip install 'ludus\[bnb\]'"):
            build_optimizer(model, EIGHT)
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is in the extra 'bnb'")

    def step(self: Any) -> None:
        raise NotImplementedError("no kernel for this device")

    monkeypatch.setattr(bitsandbytes.optim.AdamW8bit, "step", step)
    with pytest.raises(OptimizerError, match=r"on this cpu \(no kernel for this device\); set optimizer\.kind: adamw"):
        build_optimizer(model, EIGHT)


def test_a_phase_whose_optimizer_cannot_be_made_is_found_before_the_first(tmp_path) -> None:
    plain = {"name": "x", "envs": [{"name": "ludus/WordMath-v0"}], "model": {"tiny": {}}, "device": "cpu"}
    optimizer = {"kind": "paged_adamw_8bit"}
    recipe = make_recipe({**plain, "sft": {"steps": 1}, "policy": {"steps": 1, "optimizer": optimizer}}, "x.yaml")
    notes = Notes()
    with RunFolder.create(recipe, tmp_path / "run") as run, pytest.raises(OptimizerError, match="is on the cpu"):
        train_recipe(recipe, run, display=notes)
    assert notes.rows == [] and not RunFolder(tmp_path / "run").metrics()


def test_the_states_of_another_kind_are_refused() -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is in the extra 'bnb'")
    model, optimizer = walk(EIGHT, 1)
    with pytest.raises(ValueError, match="kind was adamw_8bit and is adamw"):
        load_state(build_optimizer(model, OptimizerConfig()), optimizer.state_dict())
