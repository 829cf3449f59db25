"""Chain: several recipes that follow one another, written as one.

A chain's file is a recipe with a list `chain` of stages. What stands beside the list holds for all of them, and each
stage says what is its own; of a phase (sft, star, preference, policy) what stands beside the list are defaults for the
stages that have it. A stage begins with the model of the one before, or with that of the one that `from` names, where
`start` is the model of the recipe itself.

Invariant: a chain that loads has no stage that cannot begin: every fault of every stage is a RecipeError that names it
(tests/test_chain.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .complaints import Location, shown, unknown_key
from .recipe import NAME, Recipe, RecipeError, make_recipe, read_settings
from .trainers.config import PHASES
from .yaml_core import dump

START = "start"
WHOLE = ("runs_dir", "threads", "device")
"""What a stage has in common with all others."""


@dataclass(frozen=True)
class Stage:
    """One run of a chain. origin: the stage whose model it begins with, or START.

    recipe: all of it but for the model that it begins with, which is there when the one before has ended.
    """

    name: str
    number: int
    origin: str
    recipe: Recipe

    @property
    def folder(self) -> str:
        """What its run folder is called: 02-reasoning."""
        return f"{self.number:02}-{self.name}"


@dataclass(frozen=True)
class Chain:
    """A chain as it is written down, and its stages in their order."""

    data: dict[str, Any]
    stages: tuple[Stage, ...]

    @property
    def name(self) -> str:
        """What its folder is called."""
        return str(self.data["name"])

    @property
    def seed(self) -> int:
        """The seed of the model that it starts from, where that is made on the spot."""
        return int(self.data.get("seed", 0))

    def text(self) -> str:
        """As YAML; what is loaded from it is equal."""
        return dump(self.data)


def load_training(path: str | Path, overrides: Sequence[str] = ()) -> Recipe | Chain:
    """The recipe in a YAML file, or the chain where it has a list `chain`. Overrides are those of `load_recipe`.

    An override reaches one stage by its name or its place in the list: chain.reasoning.policy.steps=100.
    """
    data, origins = read_settings(path, overrides)
    return make_chain(data, str(path), origins) if "chain" in data else make_recipe(data, str(path), origins)


def make_chain(data: dict[str, Any], source: str, origins: Sequence[tuple[Location, str]] = ()) -> Chain:
    """The chain that plain data describes. source, and for keys below a location its origin, head the sentences.

    Raises RecipeError for the first part that has faults: what all stages have in common, or a stage by its name.
    """
    common = {key: value for key, value in data.items() if key != "chain"}
    items = data["chain"]
    unknown = [unknown_key((key,), Recipe) for key in common if key not in Recipe.model_fields]
    if unknown:
        raise RecipeError("\n".join(f"{source}: {sentence}." for sentence in unknown))
    if not isinstance(common.get("name"), str) or not re.fullmatch(NAME, common["name"]):
        told = Recipe.model_fields["name"].description
        raise RecipeError(f"{source}: name = {shown(common.get('name'))} is no name of a chain; give {told}.")
    if not isinstance(items, list) or not items:
        raise RecipeError(f"{source}: chain = {shown(items)} must be a list of stages, each with a name.")
    stages: list[Stage] = []
    for place, own in enumerate(items):
        before = [stage.name for stage in stages]
        name = _name(own, place, before, source)
        mine = [(at[2:], text) for at, text in origins if at[:2] == ("chain", place)]
        heads = [(at, f"{text}: stage {name}") for at, text in [*origins, *mine]]
        stages.append(_stage(common, own, name, before, f"{source}: stage {name}", heads))
    for stage in stages:
        later = [other.name for other in stages[stage.number - 1 :]]
        if stage.recipe.star and stage.recipe.star.learner in later:
            before = [other.name for other in stages[: stage.number - 1]]
            learner = stage.recipe.star.learner
            raise RecipeError(
                f"{source}: stage {stage.name}: star.learner = {shown(learner)} {_not_before(learner, before)}"
            )
    for phase in PHASES:
        if common.get(phase) is not None and not any(phase in own for own in items):
            raise RecipeError(
                f"{source}: {phase} stands beside the chain and no stage has it; write"
                f" `{phase}: {{}}` into those that shall."
            )
    return Chain(data, tuple(stages))


def _name(own: Any, place: int, before: Sequence[str], source: str) -> str:
    if not isinstance(own, dict):
        raise RecipeError(f"{source}: chain.{place} = {shown(own)} must be a section with a name and what is its own.")
    name = own.get("name")
    if not isinstance(name, str) or not name:
        raise RecipeError(f"{source}: chain.{place} has no name; add one, such as name: cold-start.")
    if name == START or name in before:
        why = "is what the chain begins with" if name == START else "is the name of two stages"
        raise RecipeError(f"{source}: chain.{place}.name = {name} {why}; choose another.")
    return name


def _stage(
    common: dict[str, Any],
    own: dict[str, Any],
    name: str,
    before: Sequence[str],
    head: str,
    origins: Sequence[tuple[Location, str]],
) -> Stage:
    origin = own.get("from", before[-1] if before else START)
    if origin != START and origin not in before:
        raise RecipeError(f"{head}: from = {shown(origin)} {_not_before(origin, before)}")
    model = own.get("model")
    for key in [key for key in ("path", "tiny") if isinstance(model, dict) and key in model]:
        raise RecipeError(f"{head}: model.{key} is decided by the stage before; leave it out, or name one with `from`.")
    for key in [key for key in WHOLE if key in own]:
        raise RecipeError(f"{head}: {key} is the same for all stages; write it beside the chain.")
    shared = {key: value for key, value in common.items() if key not in PHASES or key in own}
    merged = _merged(shared, {key: value for key, value in own.items() if key != "from"})
    seed = common.get("seed", 0)
    if "seed" not in own and isinstance(seed, int) and not isinstance(seed, bool):
        merged["seed"] = (seed + len(before)) % 2**63  # else two stages of one kind would play the same tasks
    return Stage(name, len(before) + 1, origin, make_recipe(merged, head, origins))


def _not_before(origin: Any, before: Sequence[str]) -> str:
    known = [START, *before]
    near = get_close_matches(str(origin), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}."
    return f"is no stage before it; {hint}"


def _merged(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Sections are merged key by key; anything else of one's own takes the place of what is common."""
    merged = dict(common)
    for key, value in own.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
