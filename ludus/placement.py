"""Placement: where the episodes of a run are played, in this process or by Ray actors; one key of the recipe chooses.

Invariant: trainers see an engine and what plays episodes on it, and cannot tell the placements apart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .agents.engine import TrainingEngine
from .agents.engines import make_engine
from .agents.rollout import Arena, Player, Rollout
from .agents.torch_engine import TorchEngine
from .agents.vllm_engine import VLLMEngine
from .agents.weights import Sent, WeightFolder
from .arenas import Arenas, EnvMakers
from .envs.registration import learn_specs, specs_of
from .recipe import Recipe
from .trainers.ray_worker import Workplace, load_sent, serve_sent
from .trainers.recorder import Show

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def place_rollout(
    recipe: Recipe,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    arenas: Arenas,
    display: Show,
) -> tuple[Player, TrainingEngine]:
    """What plays the episodes of a recipe, and its engine."""
    config = recipe.rollout
    slots = recipe.engine.slots * config.workers
    concurrency = (recipe.policy.concurrency if recipe.policy else None) or slots
    if config.placement == "in_process":
        engine = _engine(recipe, model, tokenizer, display.note)
        return _rollout(recipe, engine, arenas.all, concurrency), engine
    from .trainers.ray_pool import RayPool

    make = partial(make_workplace, recipe, tokenizer, specs_of([env.name for env in recipe.envs]))
    pool = RayPool(
        make,
        arenas.all,
        model,
        config=config,
        concurrency=concurrency,
        weights=WeightFolder(None if config.weights_dir is None else Path(config.weights_dir)),
        show=display,
    )
    return pool, pool.engine


def make_workplace(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, specs: list[EnvSpec], sent: Sent) -> Workplace:
    """An engine for the weights that were sent, and the environments of a recipe, in another process.

    specs: how these are registered where the run began, which need not have reached this process.
    """
    learn_specs(specs)
    device = "cuda" if recipe.rollout.gpus_per_worker and torch.cuda.is_available() else "cpu"
    model = load_sent(sent, device)
    by_file = recipe.engine.model_copy(update={"transfer": "file"})  # as what was sent is
    engine = _engine(recipe.model_copy(update={"engine": by_file}), model, tokenizer)
    arenas = EnvMakers.of(recipe).arenas(tokenizer).all
    load = engine.take if isinstance(engine, VLLMEngine) else partial(serve_sent, engine, model)
    return Workplace(_rollout(recipe, engine, arenas, recipe.engine.slots), load)


def _engine(
    recipe: Recipe,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    note: Callable[[str], None] | None = None,
) -> TorchEngine | VLLMEngine:
    return make_engine(recipe.engine, model, tokenizer, threads=torch.get_num_threads(), note=note)


def _rollout(recipe: Recipe, engine: TrainingEngine, arenas: dict[str, Arena], concurrency: int) -> Rollout:
    return Rollout(engine, arenas, concurrency=concurrency, step_deadline_s=recipe.rollout.step_deadline_s)
