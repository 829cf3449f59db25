"""WeightsFolder: where the learner leaves its weights for engines in other processes.

Invariant: a version is complete before anybody is told of it, and stays until every engine has left it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..agents.lora import has_lora, save_merged
from ..sandbox.errors import LudusError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEMORY = Path("/dev/shm")
"""Files in memory, where there are any."""
PREFIX = "ludus-weights-"


class WeightsError(LudusError):
    """Weights that could not be handed over."""


class WeightsFolder:
    """A folder for versions of a model's weights, deleted by `close`."""

    def __init__(self, root: Path) -> None:
        self.path = root

    @classmethod
    def choose(cls, model: PreTrainedModel, wanted: str | None, beside: Path, memory: Path = MEMORY) -> WeightsFolder:
        """A new folder: in `wanted` where it is given, in memory where two versions fit twice, else in `beside`."""
        if memory.is_dir():
            _sweep(memory)
        size = 4 * sum(parameter.numel() * 4 for parameter in model.parameters())
        place = beside
        if wanted is not None:
            place = Path(wanted)
        elif os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > size:
            place = memory
        try:
            place.mkdir(parents=True, exist_ok=True)
            return cls(Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place.absolute())))
        except OSError as error:
            raise WeightsError(
                f"No folder for weights can be made in {place} ({error.strerror}); set rollout.weights_dir to one that"
                " all workers see."
            ) from error

    def write(self, model: PreTrainedModel, version: int) -> Path:
        """Write the weights, adapters merged, in Hugging Face format, into a folder of their own."""
        target = Path(tempfile.mkdtemp(prefix=f"v{version:06d}-", dir=self.path))
        try:
            if has_lora(model):
                save_merged(model, target)
            else:
                model.save_pretrained(target)
        except Exception as error:  # safetensors raises its own type for a full disk
            shutil.rmtree(target, ignore_errors=True)
            raise WeightsError(
                f"The weights could not be written to {target} ({str(error).strip()}); free some space there, or set"
                " rollout.weights_dir to a folder with more."
            ) from error
        return target

    def keep_only(self, folder: Path) -> None:
        """Delete all versions but one."""
        for other in self.path.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)

    def close(self) -> None:
        """Delete all of it."""
        shutil.rmtree(self.path, ignore_errors=True)


def load_served(folder: Path, device: str) -> PreTrainedModel:
    """The model whose weights were written into a folder, in float32."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval()


def _sweep(memory: Path) -> None:
    """Delete what runs left behind that were killed."""
    for folder in memory.glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
