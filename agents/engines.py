"""Which engine a recipe wants, made for a model in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .config import EngineConfig
from .torch_engine import TorchEngine
from .vllm_engine import VLLMEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COLOCATED = {"gpu_memory_utilization": 0.4}
"""Beside a trainer on the same GPU, vLLM may not take nearly all of its memory, as it does by itself."""


def make_engine(
    config: EngineConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    threads: int | None = None,
    near: Path | None = None,
) -> TorchEngine | VLLMEngine:
    """The engine of a recipe, which serves `model`. threads, near: as of VLLMEngine, which is to be closed."""
    if config.kind == "torch":
        return TorchEngine(model, tokenizer, slots=config.slots, max_length=config.max_length)
    colocated = COLOCATED if next(model.parameters()).device.type == "cuda" else {}
    return VLLMEngine(
        model,
        tokenizer,
        slots=config.slots,
        max_length=config.max_length,
        settings={**colocated, **config.vllm},
        timeout_s=config.timeout_s,
        threads=threads,
        near=near,
    )


@contextmanager
def build_engine(
    config: EngineConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Iterator[TorchEngine | VLLMEngine]:
    """The same, closed when it is left."""
    engine = make_engine(config, model, tokenizer)
    try:
        yield engine
    finally:
        if isinstance(engine, VLLMEngine):
            engine.close()
