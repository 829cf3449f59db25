"""Ray overhead: a Ray worker against this process on the same episodes; new weights with the proof that they arrived.

Both sides have a TorchEngine with the same number of threads and play the same word problems with the same weights and
seeds, whose episodes are the same to the last bit. They take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ludus.agents.engine import Sampling, TrainingEngine
from ludus.agents.model import create_tiny_model
from ludus.agents.rollout import EpisodeRequest, Player
from ludus.agents.seeds import derive_seed
from ludus.arenas import EnvMakers
from ludus.placement import place_rollout
from ludus.recipe import Recipe

from .measure import BenchmarkError, in_turns, need, ratio, seconds_of
from .options import Options
from .placement import HEADS
from .recipe_runs import read_recipe
from .step import Silence
from .table import Table, verdict
from .tiny import describe_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EPISODES, MAX_TOKENS = 512, 64
ENV = "ludus/WordMath-v0"


def run(options: Options) -> list[Table]:
    """One table of rollouts and one of weights."""
    need("ray")
    episodes = 16 if options.quick else EPISODES
    with ExitStack() as stack, torch.no_grad():
        here, engine = _placed(stack, options)
        there, by_ray = _placed(stack, options, "rollout.placement=ray", "rollout.cpus_per_worker=0.5")
        return [_rollouts(here, there, episodes, options), _transfers(stack, engine, by_ray, options)]


def _placed(stack: ExitStack, options: Options, *overrides: str) -> tuple[Player, TrainingEngine]:
    """What the default recipe plays with where it is placed, but with the model that it begins with."""
    recipe = _recipe(options, *overrides)
    model, tokenizer = _model(options)
    player, engine = place_rollout(recipe, model, tokenizer, EnvMakers.of(recipe).arenas(tokenizer), Silence())
    stack.callback(player.close)
    return player, engine


def _recipe(options: Options, *overrides: str) -> Recipe:
    small = ("engine.slots=8",) if options.quick else ()
    return read_recipe("wordmath.yaml", *HEADS, *small, *options.overrides, *overrides)


def _model(options: Options) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    shape = _recipe(options).model.tiny
    if shape is None:
        raise BenchmarkError("This is measured with the recipe's tiny model; leave model.tiny as it is.")
    return create_tiny_model(shape, seed=0)


def _rollouts(here: Player, there: Player, episodes: int, options: Options) -> Table:
    repetitions = options.times(7)
    source = here.arenas[ENV].env.source
    asked = [
        EpisodeRequest(str(i), ENV, source.task(i), str(i), derive_seed(0, i), Sampling(max_tokens=MAX_TOKENS))
        for i in range(episodes)
    ]
    wanted = [_tokens(player.run(asked)) for player in (here, there)]
    if wanted[0] != wanted[1]:
        raise BenchmarkError("The episodes of the Ray worker are not those of this process; see tests/test_ray.py.")
    sides = {name: partial(seconds_of, partial(player.run, asked)) for name, player in _named(here, there)}
    found = in_turns(sides, repetitions)
    overhead = ratio(found["Ray"], found["in process"])
    table = Table(
        f"{episodes} episodes of {ENV}, by a Ray worker and in process",
        {"side": "", "seconds": ".3f", "tokens/s": ",.0f", "ratio of seconds": ".3f", "target": ""},
    )
    tokens = sum(len(ids) for ids in wanted[0])
    for name, sample in found.items():
        judged = (overhead, verdict(overhead, "at most", 1.1)) if name == "Ray" else (None, None)
        table.add(name, sample, tokens / sample.median, *judged)
    table.notes.append(f"Medians of {repetitions} turns (smallest to largest); tokens are those sampled and read.")
    table.notes.append(f"{describe_model(_model(options)[0])[:-1]} on each side.")
    return table


def _named(here: Player, there: Player) -> list[tuple[str, Player]]:
    return [("in process", here), ("Ray", there)]


def _tokens(episodes: list[Any]) -> list[tuple[int, ...]]:
    """All token ids of each episode."""
    if any(episode.error for episode in episodes):
        raise BenchmarkError(f"An episode failed: {next(e.error for e in episodes if e.error)}")
    return [tuple(token for path in episode.trajectories for token in path.token_ids) for episode in episodes]


def _transfers(stack: ExitStack, engine: TrainingEngine, by_ray: TrainingEngine, options: Options) -> Table:
    """Each turn changes all weights a little and has each engine serve them."""
    repetitions = options.times(10)
    model, tokenizer = _model(options)
    engines: dict[str, TrainingEngine] = {"in process, TorchEngine": engine, "a Ray worker, TorchEngine": by_ray}
    notes = []
    try:
        need("vllm")
    except BenchmarkError as error:
        notes.append(f"VLLMEngine was not measured: {error}")
    else:
        from ludus.agents.vllm_engine import VLLMEngine

        sizes = _recipe(options).engine
        served = VLLMEngine(
            model, tokenizer, slots=sizes.slots, max_length=sizes.max_length, threads=torch.get_num_threads()
        )
        engines["VLLMEngine"] = stack.enter_context(served)
    sides = {name: _loader(model, one) for name, one in engines.items()}
    found = in_turns(sides, repetitions, warmups=2)
    table = Table("New weights in an engine", {"engine": "", "proof": "", "seconds": ".3f", "target": ""})
    for name, sample in found.items():
        home = name.startswith("in process")
        judged = None if home else verdict(sample, "at most", 0.2)
        table.add(name, "not needed" if home else "digests and probe", sample, judged)
    table.notes = [f"Medians of {repetitions} turns (smallest to largest).", *notes, describe_model(model)]
    return table


def _loader(model: Any, engine: TrainingEngine) -> Callable[[], float]:
    def load() -> float:
        with torch.no_grad():
            for weight in model.parameters():
                weight *= 1.0001
        return seconds_of(partial(engine.load_weights, model, engine.version + 1))

    return load
