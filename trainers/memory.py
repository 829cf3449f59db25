"""Memory: how many bytes a phase of training takes at its fullest, from the shapes of its parts alone.

Weights, gradients, optimiser states, copies and the engine are counted exactly; what a forward pass leaves for the
backward pass is counted for the usual gated transformer block, with every token of a full micro-batch sampled
(tests/test_memory.py measures both). Not counted: the process itself, what allocators keep for later, and the cache
of conversations that wait outside the engine's slots.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn

from ..agents.config import EngineConfig
from ..agents.decoder import cache_shape, head_dim, kv_heads
from .config import OptimizerConfig
from .optimizer import muon_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FLOAT = 4
LOGITS = 4
"""Tensors [tokens, vocabulary] that are there together: log-probabilities, their gradient, and two to make them."""
REGION_WEIGHTS, REGION_ACTIVATIONS = 10, 1.5
"""A trust region's copies of what learns, beside the gradient, and what the graph of a derivative keeps of each
activation, for products with the curvature."""
SEARCH_WEIGHTS = 3
"""Its copies of what learns while it looks for the length of the step."""
QUANTISED = 4096
"""Weights that a tensor has at least whose states bitsandbytes keeps in 8 bits."""


def model_bytes(model: nn.Module) -> int:
    """Float32 weights; a matrix that is input and output embedding at once counts once."""
    return FLOAT * sum(p.numel() for p in model.parameters())


def trained_bytes(model: nn.Module) -> int:
    """Float32 weights that learn, as many as their gradients have, and a copy that shares what is frozen."""
    return FLOAT * sum(p.numel() for p in model.parameters() if p.requires_grad)


def state_bytes(model: nn.Module, config: OptimizerConfig) -> int:
    """What the optimizer remembers: two numbers for each weight that learns, or one where Muon steps it."""
    by_muon = muon_weights(model, config)
    found = 0
    for name, p in model.named_parameters():
        if p.requires_grad:
            quantised = config.kind != "adamw" and p.numel() >= QUANTISED
            # In 8 bits, blocks of 256 share a scale.
            adamw = 2 * p.numel() + 2 * FLOAT * -(-p.numel() // 256) if quantised else 2 * FLOAT * p.numel()
            found += FLOAT * p.numel() if name in by_muon else adamw
    return found


def engine_bytes(model: PreTrainedModel, engine: EngineConfig, itemsize: int) -> dict[str, int]:
    """The engine's copy of the weights, adapters merged, and its cache. itemsize: bytes of one of its numbers."""
    config: Any = model.config
    plain = sum(p.numel() for name, p in model.named_parameters() if ".lora_" not in name)
    tied = config.vocab_size * config.hidden_size if getattr(config, "tie_word_embeddings", False) else 0
    cache = math.prod(cache_shape(config, engine.slots, engine.max_length))
    return {"engine's weights": itemsize * (plain + tied), "engine's cache": itemsize * cache}


def micro_batch_bytes(model: PreTrainedModel, tokens: int, gradient_checkpointing: bool) -> dict[str, int]:
    """What a forward pass over so many tokens leaves for the backward pass, and the logits of all of them."""
    config: Any = model.config
    width, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * width
    queries, keys = (n * head_dim(config) for n in (config.num_attention_heads, kv_heads(config)))
    block = 6 * width + 4 * inner + 2 * queries + 2 * keys
    kept = layers * width + block if gradient_checkpointing else layers * block
    passing = 3 * inner + 2 * width  # gradients within the block that is gone through backwards
    return {
        "activations": FLOAT * tokens * (kept + 3 * width + passing),
        "logits": FLOAT * LOGITS * tokens * config.vocab_size,
    }


def trust_region_bytes(model: PreTrainedModel, micro_batch: dict[str, int], tokens: int, curved: int) -> int:
    """What TRPO takes beyond a gradient: for products with the curvature, or then to look for the length of the step.

    micro_batch: of `micro_batch_bytes`, let go by then. tokens: of a step's whole rollout, whose distributions before
    the step are kept. curved: of the largest micro-batch of those that the curvature is taken from.
    """
    config: Any = model.config
    own = micro_batch_bytes(model, curved, gradient_checkpointing=False)
    graph = int((1 + REGION_ACTIVATIONS) * own["activations"]) + own["logits"]
    products = REGION_WEIGHTS * trained_bytes(model) + graph - sum(micro_batch.values())
    return max(products, SEARCH_WEIGHTS * trained_bytes(model) + FLOAT * tokens * config.vocab_size)


def phase_bytes(
    model: PreTrainedModel,
    optimizer: OptimizerConfig,
    engine: EngineConfig,
    micro_batch_tokens: int,
    *,
    gradient_checkpointing: bool = False,
    reference: bool = False,
    critic: OptimizerConfig | None = None,
    teacher: int = 0,
    learner: int = 0,
    trust_region: int = 0,
    curvature_share: float = 1.0,
    cuda: bool = False,
) -> dict[str, int]:
    """The bytes of a phase by what they are for.

    model: it or its outline, adapters and all. critic: its optimizer, where there is one. teacher, learner: bytes of
    their weights. trust_region: tokens of a step's rollout where one bounds it; the optimizer then never steps, and no
    block is gone through twice. curvature_share: of those tokens, what the curvature is taken from. cuda: on a GPU,
    where the engine and the arithmetic are in bfloat16.
    """
    found = {"weights": model_bytes(model), "gradients": trained_bytes(model)}
    found["optimiser states"] = 0 if trust_region else state_bytes(model, optimizer)
    found |= engine_bytes(model, engine, 2 if cuda else FLOAT)
    micro_batch = micro_batch_bytes(model, micro_batch_tokens, gradient_checkpointing and not trust_region)
    found |= micro_batch
    if trust_region:
        curved = min(micro_batch_tokens, math.ceil(curvature_share * trust_region))
        found["trust region"] = trust_region_bytes(model, micro_batch, trust_region, curved)
    if cuda:
        found["bfloat16 copies"] = model_bytes(model) // 2
    if reference:
        found["reference"] = trained_bytes(model)
    if teacher:
        found["teacher"] = teacher
    if learner:
        found["learner"] = learner
    if critic is not None:
        body = model.base_model
        found["critic"] = 2 * trained_bytes(body) + state_bytes(body, critic)
    return found
