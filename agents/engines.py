"""Which engine a recipe wants, made for a model in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .config import EngineConfig
from .engine import EngineError
from .handover import ON_THE_GPU, Handover
from .torch_engine import TorchEngine
from .vllm_engine import VLLMEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COLOCATED = {"gpu_memory_utilization": 0.4}
"""Beside a trainer on the same GPU, vLLM may not take nearly all of its memory, as it does by itself."""
PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""Settings of vLLM that spread it over several GPUs."""


def make_engine(
    config: EngineConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    threads: int | None = None,
    near: Path | None = None,
    note: Callable[[str], None] | None = None,
) -> TorchEngine | VLLMEngine:
    """The engine of a recipe, which serves `model`. threads, near, note: as of VLLMEngine, which is to be closed."""
    if config.kind == "torch":
        return TorchEngine(model, tokenizer, slots=config.slots, max_length=config.max_length)
    device = next(model.parameters()).device
    colocated = COLOCATED if device.type == "cuda" else {}
    return VLLMEngine(
        model,
        tokenizer,
        slots=config.slots,
        max_length=config.max_length,
        settings={**colocated, **config.vllm},
        timeout_s=config.timeout_s,
        threads=threads,
        near=near,
        note=note,
        handover=choose_handover(config, device),
        sleeps=config.sleep,
        keep_routing=config.keep_routing,
    )


def choose_handover(config: EngineConfig, device: torch.device) -> Handover | None:
    """How new weights reach vLLM: handed over on the GPU where trainer and vLLM share one, else by a file, None.

    device: of the trainer's model; vLLM alone takes the first GPU. EngineError where a recipe wants what cannot be.
    """
    spread = [name for name in PARALLEL if config.vllm.get(name, 1) != 1]
    shared = device.type == "cuda" and not device.index and not spread
    if config.transfer == "ipc" and not shared:
        where = f"engine.vllm.{spread[0]} spreads vLLM over several GPUs" if spread else f"the model is on {device}"
        raise EngineError(
            f"engine.transfer = ipc is for a trainer and vLLM that share the first GPU, and {where}; set "
            "engine.transfer: auto."
        )
    if not shared or config.transfer == "file":
        return None
    return replace(ON_THE_GPU, insisted=config.transfer == "ipc")


@contextmanager
def build_engine(
    config: EngineConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    note: Callable[[str], None] | None = None,
) -> Iterator[TorchEngine | VLLMEngine]:
    """The same, closed when it is left."""
    engine = make_engine(config, model, tokenizer, note=note)
    try:
        yield engine
    finally:
        if isinstance(engine, VLLMEngine):
            engine.close()
