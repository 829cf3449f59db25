"""A tiny model whose output layer is its embeddings, for the tests of engines."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ludus.agents.config import TinyModel
from ludus.agents.model import create_tiny_model

SHAPE = TinyModel(
    hidden_size=64, layers=2, heads=2, kv_heads=2, intermediate_size=96, max_length=160, tags=("<calculator>",)
)

ALSO_ENDS = frozenset(range(20, 40))
"""Tokens that also end a turn by what its generation_config.json says, as <|endoftext|> does of many chat models."""


def varied(seed: int) -> PreTrainedModel:
    """Weights that say something else for each seed."""
    model, _ = create_tiny_model(SHAPE, seed)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.generation_config.eos_token_id = [model.config.eos_token_id, *ALSO_ENDS]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return model


def its_tokenizer() -> PreTrainedTokenizerBase:
    """A new one each time."""
    return create_tiny_model(SHAPE, 0)[1]
