"""The package vllm: whether it is there, how its processes are started, and what it can serve."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import torch

from ..sandbox.errors import LudusError
from .decoder import head_dim, is_mixture, kv_heads
from .engine import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OLDEST = (0, 20)
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}


class MissingVLLMError(LudusError):
    """vLLM is not installed, or does not start."""


def import_vllm() -> Any:
    """The package vllm. MissingVLLMError says how to install it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ImportError as error:
        raise MissingVLLMError(
            f"This engine needs vLLM; install it with: pip install 'ludus[vllm]', without a GPU by: make setup-vllm "
            f"({first_line(error)})"
        ) from None
    except Exception as error:  # of parts that do not go together, such as another torch
        raise MissingVLLMError(
            f"vLLM is installed and cannot be imported ({type(error).__name__}: {first_line(error)}); install it anew "
            "with: pip install --upgrade 'ludus[vllm]', without a GPU by: make setup-vllm"
        ) from error
    numbers = tuple(int(part) for part in vllm.__version__.split(".")[:2] if part.isdecimal())
    if "dev" not in vllm.__version__ and numbers < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise MissingVLLMError(
            f"vLLM {vllm.__version__} is older than {wanted}; run: pip install --upgrade 'ludus[vllm]', without a GPU: "
            "make setup-vllm"
        )
    return vllm


@contextlib.contextmanager
def environment(threads: int | None) -> Any:
    """The variables that vLLM's processes are to start with; they are as before when it is left."""
    wanted = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # lets the processor's worker live in the engine's process
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a forked one would not read its settings, and with them its `Owner`
    }
    if threads is not None:
        wanted["OMP_NUM_THREADS"] = str(threads)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def check_model(model: PreTrainedModel, max_length: int, on_gpu: bool, keep_routing: bool) -> None:
    """EngineError or MissingVLLMError where vLLM could not serve a model as it is asked to, see `VLLMEngine`."""
    longest = getattr(model.config, "max_position_embeddings", None) or max_length
    if max_length > longest:
        raise EngineError(f"The model reads {longest} tokens and engine.max_length is {max_length}; lower it.")
    if not on_gpu:
        _check_heads(model.config)
    if keep_routing and not is_mixture(model.config):
        raise EngineError(
            f"{type(model).__name__} is no mixture of experts whose routing could be kept; remove engine.keep_routing."
        )


def _check_heads(config: Any) -> None:
    """MissingVLLMError where vLLM's kernels for the processor do not know the width of the model's heads."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    width, known = head_dim(config), CPUAttentionBackend.get_supported_head_sizes()
    if width not in known:
        raise MissingVLLMError(
            f"vLLM's build for the CPU knows attention heads of {', '.join(map(str, known))} numbers, and this model's"
            f" have {width}; choose another number of heads (model.tiny.heads and kv_heads), or engine.kind: torch."
        )


def cache_bytes(config: Any, slots: int, max_length: int, dtype: torch.dtype) -> int:
    """What keys and values of so many sequences of such a length take, in blocks, and a little more."""
    blocks = -(-max_length // 128) + 1
    return slots * blocks * 128 * 2 * config.num_hidden_layers * kv_heads(config) * head_dim(config) * dtype.itemsize


def first_line(error: BaseException) -> str:
    """The first line that says something; pydantic's first only counts."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:3]) if "validation error" in lines[0] else lines[0]
