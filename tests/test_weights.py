"""Weights for engines elsewhere: what is written is what was sent, and the proof sees what is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixture import mixture
from transformers import PreTrainedModel

from ludus.agents.config import LoraConfig, TinyModel
from ludus.agents.lora import add_lora, merged_weights
from ludus.agents.model import create_tiny_model
from ludus.agents.weights import Sent, TransferError, WeightFolder, digest, digests, plain_weights, prove, read_weights

SHAPE = TinyModel(hidden_size=32, layers=2, heads=2, kv_heads=2, intermediate_size=48, max_length=64)


def tiny(tied: bool = False) -> PreTrainedModel:
    model, _ = create_tiny_model(SHAPE, 0)
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    return model


@given(st.integers(0, 2**32 - 1), st.sampled_from([torch.float32, torch.bfloat16]), st.data())
def test_a_digest_sees_every_bit(seed: int, dtype: torch.dtype, data: st.DataObject) -> None:
    tensor = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)
    before = digest(tensor)
    assert digest(tensor.t().contiguous().t()) == before  # however it lies in memory
    raw = tensor.view(torch.uint8).view(-1)
    raw[data.draw(st.integers(0, raw.numel() - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert digest(tensor) != before


def test_a_digest_tells_types_and_shapes_apart() -> None:
    zeros = torch.zeros(4, dtype=torch.float32)
    assert len({digest(zeros), digest(zeros.view(2, 2)), digest(zeros.view(torch.int32))}) == 3


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_read_is_what_was_sent(tied: bool, tmp_path: Path) -> None:
    model = tiny(tied)
    with WeightFolder(tmp_path) as folder:
        sent = folder.send(model, 3)
        found = dict(read_weights(sent.path))
        assert digests(found) == dict(sent.digests)
        assert ("lm_head.weight" in found) != tied  # a matrix that is two things is sent once
        assert all(torch.equal(found[name], tensor) for name, tensor in plain_weights(model).items())
        folder.forget(sent)
        assert not sent.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_adapters_are_merged(tmp_path: Path) -> None:
    model = tiny()
    add_lora(model, LoraConfig(rank=2), 0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(1))
    with WeightFolder(tmp_path) as folder:
        found = dict(read_weights(folder.send(model, 1).path))
    assert not any("lora" in name for name in found)
    assert torch.equal(
        found["model.layers.0.mlp.up_proj.weight"], merged_weights(model)["model.layers.0.mlp.up_proj.weight"]
    )


def test_the_probe_is_the_same_for_the_same_weights(tmp_path: Path) -> None:
    with WeightFolder(tmp_path) as folder:
        first, again = folder.send(tiny(), 1), folder.send(tiny().train(), 2)
    assert first.probe == again.probe
    assert first.digests == again.digests


def test_what_a_killed_process_left_is_deleted_by_the_next(tmp_path: Path) -> None:
    dead, young = tmp_path / "ludus-weights-1-dead", tmp_path / "ludus-weights-1-young"
    for folder in (dead, young):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"old")
    os.utime(dead, (0, 0))
    with WeightFolder(tmp_path) as alive:
        kept = alive.send(tiny(), 1)
        os.utime(kept.path.parent.parent, (0, 0))  # old, and in use
        with WeightFolder(tmp_path) as other:
            other.send(tiny(), 1)
            assert kept.path.exists() and young.exists() and not dead.exists()


def test_no_room_is_said(tmp_path: Path) -> None:
    folder = WeightFolder(tmp_path)
    folder.send(tiny(), 1)
    (home,) = tmp_path.iterdir()
    shutil.rmtree(home)
    home.write_text("a file in its place")
    with pytest.raises(TransferError, match="version 2 could not be written"):
        folder.send(tiny(), 2)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"to \S*/typo \(No such .*\); .* another by rollout\.weights_dir\.$"):
        WeightFolder(tmp_path / "typo").send(tiny(), 1)


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "mixtral", "gpt-oss"])
def test_a_mixture_of_experts_is_sent_as_its_files_are_written(family: str, tmp_path: Path) -> None:
    """By the names that engines look for, which are not those that transformers 5 computes with."""
    model = mixture(family)
    model.save_pretrained(tmp_path / "written")
    written = {name: t for file in (tmp_path / "written").glob("*.safetensors") for name, t in read_weights(file)}
    with WeightFolder(tmp_path) as folder:
        sent = folder.send(model, 0)
        assert digests(dict(read_weights(sent.path))) == digests(written) == dict(sent.digests)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    with WeightFolder(tmp_path_factory.mktemp("weights")) as folder:
        yield folder.send(tiny(), 7)


class TestProof:
    def test_what_is_served_is_proven(self, sent: Sent) -> None:
        shown = [one + 5e-5 for one in sent.probe.logprobs]
        proof = prove(sent, 7, sent.digests, shown, torch.float32, "it")
        assert (proof.version, proof.tensors) == (7, len(sent.digests))
        assert proof.gap == pytest.approx(5e-5, rel=1e-6)

    def test_another_version(self, sent: Sent) -> None:
        with pytest.raises(TransferError, match="version 7: it says that it serves version 6"):
            prove(sent, 6, sent.digests, sent.probe.logprobs, torch.float32, "it")

    @pytest.mark.parametrize("lost", [True, False])
    def test_another_tensor(self, sent: Sent, lost: bool) -> None:
        arrived = {**sent.digests, "model.norm.weight": "0" * 64}
        if lost:
            del arrived["model.norm.weight"]
        with pytest.raises(TransferError, match=r"first of them model\.norm\.weight"):
            prove(sent, 7, arrived, sent.probe.logprobs, torch.float32, "it")

    @pytest.mark.parametrize(
        ("gap", "dtype"), [(2e-4, torch.float32), (0.5, torch.bfloat16), (float("nan"), torch.float32)]
    )
    def test_other_likelihoods(self, sent: Sent, gap: float, dtype: torch.dtype) -> None:
        shown = list(sent.probe.logprobs)
        shown[4] += gap
        with pytest.raises(TransferError, match="token 5 of a fixed sequence"):
            prove(sent, 7, sent.digests, shown, dtype, "it")

    def test_half_the_precision_is_allowed_more(self, sent: Sent) -> None:
        shown = [one + 0.01 for one in sent.probe.logprobs]
        assert prove(sent, 7, sent.digests, shown, torch.bfloat16, "it").gap == pytest.approx(0.01, rel=1e-3)
        with pytest.raises(TransferError):
            prove(sent, 7, sent.digests, shown, torch.float32, "it")

    def test_a_mixture_of_experts_may_choose_others_now_and_then(self, sent: Sent) -> None:
        """In half the precision, at one token in ten; other weights are seen at more."""
        mixed = replace(sent, probe=replace(sent.probe, mixture=True))
        shown = list(sent.probe.logprobs)
        for place in (3, 20, 30, 40):
            shown[place] += 5.0
        assert prove(mixed, 7, sent.digests, shown, torch.bfloat16, "it").gap == 0
        for other, dtype in [(sent, torch.bfloat16), (mixed, torch.float32)]:
            with pytest.raises(TransferError, match="differs from the trainer's by 5 nats"):
                prove(other, 7, sent.digests, shown, dtype, "it")
        shown[10] += 0.5
        with pytest.raises(
            TransferError, match=r"token 11 of a fixed sequence differs from the trainer's by 0\.5 nats"
        ):
            prove(mixed, 7, sent.digests, shown, torch.bfloat16, "it")
