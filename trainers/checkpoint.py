"""Checkpoints: a Hugging Face model directory with the trainer's state beside it; of one with adapters, these alone.

Invariant: a folder with its final name is complete. Each is written aside, fsynced and renamed; a failure in between
leaves the last good one as it was (tests/test_resume.py).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..agents.lora import adapter_weights, has_lora, save_adapters
from ..agents.weights import as_written
from ..sandbox.errors import LudusError
from .config import PHASES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STATE_FILE = "trainer_state.pt"


class CheckpointError(LudusError):
    """A checkpoint that could not be written or read."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk: after `step` steps of `phase`."""

    path: Path
    phase: str
    step: int

    def state(self) -> dict[str, Any]:
        """The trainer's state. CheckpointError where the file cannot be read."""
        try:
            return torch.load(self.path / STATE_FILE, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"{self.path} cannot be read ({error}); delete it to resume from the one before."
            ) from error


def save_checkpoint(
    folder: Path,
    phase: str,
    step: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Write `folder/PHASE-STEP` and delete all but the newest `keep`. CheckpointError names the reason of a failure."""

    def write(place: Path) -> None:
        save_weights(model, place)
        tokenizer.save_pretrained(place)
        torch.save(state, place / STATE_FILE)

    target = write_folder(folder / f"{phase}-{step:06d}", write)
    for old in list_checkpoints(folder)[:-keep]:
        # Under another name first: whenever the process dies, a folder with its final name is complete.
        os.rename(old.path, old.path.with_name(f".{old.path.name}.removed"))
    for gone in folder.glob(".*.removed"):
        shutil.rmtree(gone, ignore_errors=True)
    return target


def write_folder(target: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a folder beside `target`, fsync all of it, and rename it to `target`."""
    aside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        write(aside)
        for path in [*aside.rglob("*"), aside]:
            _fsync(path)
        if target.exists():
            shutil.rmtree(target)
        os.rename(aside, target)
        _fsync(target.parent)
    except BaseException as error:  # safetensors and torch raise their own types for a full disk
        shutil.rmtree(aside, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        raise CheckpointError(
            f"The checkpoint {target} could not be written ({str(error).strip()}); the last good one stands. "
            "Free some space and continue with `ludus train --resume`."
        ) from error
    return target


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Complete checkpoints, oldest first."""
    found = []
    for path in folder.glob("*-*"):
        match = re.fullmatch(rf"({'|'.join(PHASES)})-(\d+)", path.name)
        if match and (path / STATE_FILE).is_file():
            found.append(Checkpoint(path, match[1], int(match[2])))
    return sorted(found, key=lambda c: (PHASES.index(c.phase), c.step))


def save_weights(model: PreTrainedModel, place: Path) -> None:
    """Write a model into a folder for `load_weights`; of one with adapters, these."""
    if has_lora(model):
        save_adapters(model, place)
    else:
        model.save_pretrained(place)


def load_weights(model: PreTrainedModel, path: Path) -> None:
    """Read the weights of a checkpoint into a model of the same shape, bit for bit; of one with adapters, these."""
    from safetensors.torch import load_file

    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{path} holds no safetensors file; it is not a complete model directory.")
    try:
        weights = {name: tensor for file in files for name, tensor in load_file(file).items()}
    except Exception as error:  # safetensors raises its own
        raise CheckpointError(f"{path} cannot be read ({error}); delete it to resume from the one before.") from error
    own = trained_weights(model)
    written = own if has_lora(model) else as_written(model, own)
    tied = set(getattr(model, "all_tied_weights_keys", None) or getattr(model, "_tied_weights_keys", None) or ())
    same = all(name in written and written[name].shape == tensor.shape for name, tensor in weights.items())
    if not same or written.keys() - weights.keys() - tied:
        raise CheckpointError(f"{path} holds a model of another shape than the recipe's; use the run's own recipe.")
    if not weights.keys() <= own.keys():
        weights = type(model).from_pretrained(path, dtype=model.dtype).state_dict()  # which puts experts together
    put_weights(model, weights)


def trained_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """What training changes of a model, not copied: all of its state, or its adapters where it has some."""
    return adapter_weights(model) if has_lora(model) else model.state_dict()


def put_weights(model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Copy what `trained_weights` returned of a model of the same shape into another."""
    if has_lora(model):
        own = adapter_weights(model)
        for name, tensor in weights.items():
            own[name].copy_(tensor)
        return
    model.load_state_dict(weights, strict=False)
    model.tie_weights()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
