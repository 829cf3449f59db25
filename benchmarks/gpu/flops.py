"""Arithmetic of a Qwen2-like model, counted from its shape, and what GPUs can do at most."""

from __future__ import annotations

import time
from typing import Any

import torch

DATASHEET_TFLOPS = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10": 125,
    "4090": 165,
}
"""Dense bfloat16 tera-operations a second by a part of the GPU's name; the first that fits counts."""


def forward_flops(config: Any, tokens: int, context: float, scored: int) -> float:
    """Operations of one forward pass over `tokens` tokens that each see `context` earlier ones on average.

    scored: positions that the output layer runs over. A multiplication and an addition count as two operations.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    head_dim = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    weights = layers * (hidden * (2 * queries + 2 * keys) + 3 * hidden * config.intermediate_size)
    attention = layers * 2 * queries * context
    return 2.0 * (tokens * (weights + attention) + scored * hidden * config.vocab_size)


def datasheet_flops(device: torch.device) -> float | None:
    """Operations a second that the maker states, None where this file does not know the GPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * value for part, value in DATASHEET_TFLOPS.items() if part in name), None)


def measured_flops(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of the best of ten products of two square matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        synchronize(device)
        start = time.perf_counter()
        left @ right
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
