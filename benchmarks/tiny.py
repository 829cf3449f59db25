"""The model that most benchmarks use: that of the default recipe, with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ludus.agents.model import create_tiny_model
from ludus.recipe import load_recipe

from .options import REPOSITORY

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RECIPE = REPOSITORY / "recipes" / "wordmath.yaml"


def tiny_model(max_length: int = 512) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The default recipe's model and tokenizer before training, for sequences up to `max_length` tokens."""
    shape = load_recipe(RECIPE).model.tiny
    assert shape is not None
    return create_tiny_model(shape.model_copy(update={"max_length": max_length}), seed=0)


def describe_model(model: PreTrainedModel) -> str:
    """Its size in words."""
    import torch

    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return f"Model: {count:.2f} M parameters, float32, {torch.get_num_threads()} thread(s)."
