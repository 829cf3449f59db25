"""Arenas of a run: the environments of a recipe, those to train in and those held out.

Invariant: the same recipe and tokenizer give arenas with the same tasks in every process, so that a worker plays what
the learner hands out (tests/test_ray.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .agents.config import EnvConfig
from .agents.rollout import Arena
from .envs.registration import make_env, takes_option
from .envs.source import TaskSource
from .envs.text_env import TextEnv
from .recipe import Recipe

BEYOND = 2**40
"""First held-out task of an endless source without splits; training never gets that far."""

EnvMaker = Callable[[], TextEnv]


@dataclass(frozen=True)
class Arenas:
    """Those to train in, by the name of their environment, and those held out, by `held-out/NAME`.

    weights: the share of each training arena. notes: what a user should know about them.
    """

    train: dict[str, Arena]
    held_out: dict[str, Arena]
    weights: list[tuple[Arena, float]]
    notes: list[str] = field(default_factory=list)

    @property
    def all(self) -> dict[str, Arena]:
        """Every arena by its name."""
        return {**self.train, **self.held_out}


@dataclass(frozen=True)
class EnvMakers:
    """Factories of a recipe's environments, by name, before there is a tokenizer."""

    recipe: Recipe
    train: dict[str, EnvMaker]
    test: dict[str, EnvMaker]

    @classmethod
    def of(cls, recipe: Recipe) -> EnvMakers:
        """Those of a recipe; each is tried, so that what is wrong with one is said at once."""
        envs = list(zip(arena_names(recipe.envs), recipe.envs, strict=True))
        train = {name: env_maker(c, c.options.get("split", "train")) for name, c in envs}
        test = {name: env_maker(c, recipe.eval.split) for name, c in envs}
        for maker in [*train.values(), *test.values()]:
            maker()
        return cls(recipe, train, test)

    def arenas(self, tokenizer: Any) -> Arenas:
        """Their arenas, with tasks kept from training where an environment has no splits."""
        recipe, rewrite = self.recipe, self.recipe.model.on_rewrite
        train = {n: Arena.build(n, maker, tokenizer, rewrite) for n, maker in self.train.items()}
        test = {n: Arena.build(f"held-out/{n}", maker, tokenizer, rewrite) for n, maker in self.test.items()}
        notes: list[str] = []
        for name, config in zip(train, recipe.envs, strict=True):
            splits = takes_option(config.name, "split")
            differ = splits and config.options.get("split", "train") != recipe.eval.split
            if not splits or (differ and same_tasks(train[name].env.source, test[name].env.source)):
                notes += _hold_out(train[name], test[name], recipe.eval.final_tasks or recipe.eval.tasks)
        weights = [(train[name], config.weight) for name, config in zip(train, recipe.envs, strict=True)]
        return Arenas(train, {arena.name: arena for arena in test.values()}, weights, notes)


def _hold_out(train: Arena, test: Arena, wanted: int) -> list[str]:
    """Of an environment without splits, keep tasks for evaluation: at most a fifth, or those far beyond."""
    size = train.env.source.size
    if size is None:
        test.first = BEYOND
    elif size < 2:
        return [f"{train.name} has a single task and no splits: it is evaluated on that task."]
    else:
        train.stop = test.first = size - min(wanted, max(1, size // 5))
    return []


def arena_names(envs: Sequence[EnvConfig]) -> list[str]:
    """The environments' names; where one is used twice, numbered."""
    names = [env.name for env in envs]
    return [n if names.count(n) == 1 else f"{n}#{names[: i + 1].count(n)}" for i, n in enumerate(names)]


def same_tasks(train: TaskSource, test: TaskSource) -> bool:
    """Whether two sources give the same tasks, as where an option `split` plays no part for a file of one's own."""
    if train.size != test.size:
        return False
    size = 3 if train.size is None else train.size
    return all(train.task(index).hash == test.task(index).hash for index in {0, size // 2, size - 1} if index >= 0)


def env_maker(config: EnvConfig, split: Any) -> EnvMaker:
    """A factory of one environment on one split, where it has splits."""
    options = dict(config.options)
    if takes_option(config.name, "split"):
        options["split"] = split
    return lambda: make_env(config.name, **options)
