"""Mixtures of experts of two layers with four experts each, made on the spot."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    DeepseekV3Config,
    GptOssConfig,
    MixtralConfig,
    OlmoeConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

LAYERS, EXPERTS, CHOSEN = 2, 4, 2
SHAPE: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 160,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "num_experts_per_tok": CHOSEN,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
EACH = {"num_experts": EXPERTS, "moe_intermediate_size": 32}
CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "qwen3": (Qwen3MoeConfig, {**EACH, "head_dim": 32, "norm_topk_prob": True}),
    "qwen3, weights of all": (Qwen3MoeConfig, {**EACH, "head_dim": 32, "norm_topk_prob": False}),
    "qwen2": (Qwen2MoeConfig, {**EACH, "shared_expert_intermediate_size": 32}),
    "mixtral": (MixtralConfig, {"num_local_experts": EXPERTS, "sliding_window": None}),
    "olmoe": (OlmoeConfig, {"num_experts": EXPERTS}),
    "gpt-oss": (GptOssConfig, {"num_local_experts": EXPERTS, "head_dim": 32}),
    "deepseek": (
        DeepseekV3Config,
        {"moe_intermediate_size": 32, "n_routed_experts": EXPERTS, "n_group": 1, "topk_group": 1},
    ),
}


def mixture(family: str = "qwen3", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model of a family, in evaluation mode."""
    config, more = CONFIGS[family]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = Auto.from_config(config(**{**SHAPE, **more, **changes}))
        for parameter in model.parameters():  # some families begin with routers of zeros
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def own_choice(model: PreTrainedModel, token_ids: list[int]) -> torch.Tensor:
    """The experts that a model chooses as it reads tokens, [T, layers, K]."""
    found: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _, __, output: found.append(output[2]))
        for module in model.modules()
        if type(module).__name__.endswith("Router")
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([token_ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack(found, 1)
