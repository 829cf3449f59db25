"""Chain: several recipes that follow one another, written as one.

A chain's file is a recipe with a list `chain` of stages. What stands beside the list holds for all of them, and each
stage says what is its own; of a phase (sft, star, preference, policy) what stands beside the list are defaults for the
stages that have it, without its `options` where the stage names another algorithm. All stages are judged on the same
held-out tasks. A stage begins with the model of the one before, or with that of the one that `from` names, where
`start` is the model of the recipe itself.

Invariant: a chain that loads has no stage that cannot begin: every fault of every stage is a RecipeError that names it
(tests/test_chain.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .complaints import Location, dotted, section_at, shown, unknown_key
from .recipe import NAME, Recipe, RecipeError, make_recipe, read_settings
from .trainers.config import PHASES, PolicyConfig
from .yaml_core import dump

START = "start"
WHOLE = ("runs_dir", "threads", "device")
"""What a stage has in common with all others."""
JUDGED = ("tasks", "final_tasks", "seed")
"""What of `eval` it has in common with them: on other tasks than the others it could not be compared with them."""


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
    _check_common(common, source, origins)
    stages: list[Stage] = []
    for place, own in enumerate(items):
        before = [stage.name for stage in stages]
        name = _name(own, place, before, source)
        mine = [(at[2:], text) for at, text in origins if at[:2] == ("chain", place)]
        heads = [(at, f"{text}: stage {name}") for at, text in [*origins, *mine]]
        stages.append(_stage(common, own, name, before, f"{source}: stage {name}", heads))
    _check_names(stages, source)
    _check_overrides(common, items, [stage.name for stage in stages], origins)
    for phase in PHASES:
        if common.get(phase) is not None and not any(phase in own for own in items):
            raise RecipeError(
                f"{source}: {phase} stands beside the chain and no stage has it; write"
                f" `{phase}: {{}}` into those that shall."
            )
    return Chain(data, tuple(stages))


def _check_common(common: dict[str, Any], source: str, origins: Sequence[tuple[Location, str]]) -> None:
    """Refuse what would be lost when a stage puts its own over it, so that no recipe of a stage complained of it."""

    def head(location: Location) -> str:
        return next((text for prefix, text in reversed(origins) if location[: len(prefix)] == prefix), source)

    for location, value in _no_sections(common):
        raise RecipeError(f"{head(location)}: {dotted(location)} = {shown(value)} must be a section, or null.")
    seed = common.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise RecipeError(f"{head(('seed',))}: seed = {shown(seed)} must be a whole number of 0 or more, below 2**63.")


def _no_sections(data: dict[str, Any], location: Location = ()) -> Iterator[tuple[Location, Any]]:
    """Where a recipe has a section, and the data have anything else but null."""
    for key, value in data.items():
        at = (*location, key)
        if at == ("envs",) or section_at(Recipe, at) is None:
            continue
        if isinstance(value, dict):
            yield from _no_sections(value, at)
        elif value is not None:
            yield at, value


def _check_names(stages: Sequence[Stage], source: str) -> None:
    """Refuse a learner or teacher that is a stage and not one before."""
    for stage in stages:
        names = [other.name for other in stages]
        before, later = names[: stage.number - 1], names[stage.number - 1 :]
        for key, name in named_models(stage.recipe).items():
            if name in later:
                raise RecipeError(f"{source}: stage {stage.name}: {key} = {shown(name)} {not_before(name, before)}")


def named_models(recipe: Recipe) -> dict[str, str]:
    """The other models of a recipe, by their keys: each a directory, a run, a hub name, in a chain a stage or START."""
    found = {
        "star.learner": recipe.star.learner if recipe.star else None,
        "policy.teacher": recipe.policy.teacher if recipe.policy else None,
    }
    return {key: name for key, name in found.items() if name is not None}


def _check_overrides(
    common: dict[str, Any],
    items: Sequence[dict[str, Any]],
    names: Sequence[str],
    origins: Sequence[tuple[Location, str]],
) -> None:
    """Refuse to override what is common where stages say it themselves, since theirs would win without a word.

    Unless they are overridden, too.
    """
    written = [at for at, _ in origins if at[0] == "chain"]
    for location, text in origins:
        if location[0] in ("chain", "name"):
            continue
        for leaf in _leaves(common, location):
            own = [
                name
                for place, (item, name) in enumerate(zip(items, names, strict=True))
                if _says(item, leaf) and not any(("chain", place, *leaf)[: len(at)] == at for at in written)
            ]
            if own:
                who, whose = ("stage", "sets") if len(own) == 1 else ("stages", "set")
                raise RecipeError(
                    f"{text}: {dotted(leaf)} would not reach the {who} {', '.join(own)}, which {whose} it; write"
                    f" {' '.join(f'chain.{name}.{dotted(leaf)}=...' for name in own)} too."
                )


def _leaves(data: Any, location: Location) -> Iterator[Location]:
    """The locations of the single values at one or below; none where a later override took it away."""
    here = data
    for part in location:
        if not isinstance(here, dict | list) or (isinstance(here, dict) and part not in here):
            return
        here = here[part]  # type: ignore[index]
    if not isinstance(here, dict):
        yield location
        return
    for key in here:
        yield from _leaves(data, (*location, key))


def _says(own: Any, location: Location) -> bool:
    """Whether what a stage says decides a location, itself or by something above it that is no section."""
    for depth, part in enumerate(location):
        if not isinstance(own, dict):
            return depth > 1 or own is not None  # a stage that says null has no such phase
        if part not in own:
            return False
        own = own[part]
    return True


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
        raise RecipeError(f"{head}: from = {shown(origin)} {not_before(origin, before)}")
    model = own.get("model")
    for key in [key for key in ("path", "tiny") if isinstance(model, dict) and key in model]:
        raise RecipeError(f"{head}: model.{key} is decided by the stage before; leave it out, or name one with `from`.")
    for key in [key for key in WHOLE if key in own]:
        raise RecipeError(f"{head}: {key} is the same for all stages; write it beside the chain.")
    evaluation = own.get("eval")
    for key in [key for key in JUDGED if isinstance(evaluation, dict) and key in evaluation]:
        raise RecipeError(
            f"{head}: eval.{key} decides on which tasks a stage is judged, and is the same for all; write it beside the"
            " chain."
        )
    _check_keys(own, head, origins)
    shared = {key: _fitting(key, value, own) for key, value in common.items() if key not in PHASES or key in own}
    merged = _merged(shared, {key: value for key, value in own.items() if key != "from"})
    seed = common.get("seed", 0)
    if "seed" not in own:
        merged["seed"] = (seed + len(before)) % 2**63  # else two stages of one kind would play the same tasks
    if merged.get("eval") is None or isinstance(merged["eval"], dict):
        merged["eval"] = {"seed": seed, **(merged.get("eval") or {})}
    return Stage(name, len(before) + 1, origin, make_recipe(merged, head, origins))


def _check_keys(own: dict[str, Any], head: str, origins: Sequence[tuple[Location, str]]) -> None:
    """Refuse a key that neither a recipe nor a stage has; `from` is one of those that it may have."""
    for key in own:
        if key == "from" or key in Recipe.model_fields:
            continue
        near = isinstance(key, str) and get_close_matches(key, [*Recipe.model_fields, "from"], n=1) == ["from"]
        told = f"{key} is not a known key; did you mean from?" if near else unknown_key((key,), Recipe)
        text = next((text for at, text in reversed(origins) if at == (key,)), head)
        raise RecipeError(f"{text}: {told}" + ("" if told.endswith("?") else ", from."))


def _fitting(key: str, common: Any, own: dict[str, Any]) -> Any:
    """What is common to a phase, without `options` where the stage names another algorithm, whose they are not."""
    its = own.get(key)
    if not isinstance(common, dict) or not isinstance(its, dict) or "algorithm" not in its:
        return common
    default = PolicyConfig.model_fields["algorithm"].default
    if its["algorithm"] == common.get("algorithm", default):
        return common
    return {name: value for name, value in common.items() if name != "options"}


def not_before(origin: Any, before: Sequence[str]) -> str:
    """The end of a sentence about a name that should be that of a stage before, or START."""
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
