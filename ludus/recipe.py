"""Recipe: everything that decides a run, frozen, in one file.

Invariant: a recipe that loads can be written down and loads again as an equal one, and whatever is wrong with a file
or an override is a RecipeError with one sentence for each fault (tests/test_recipe.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from .agents.config import Device, EngineConfig, EnvConfig, ModelConfig, SamplingConfig, Section
from .agents.engine import LOWEST_TEMPERATURE, too_cold
from .complaints import Location, complaints, dotted, section_at, shown, unknown_key
from .sandbox.errors import LudusError
from .trackers import TrackersConfig
from .trainers.config import (
    CheckpointConfig,
    EvalConfig,
    OptimizerConfig,
    PolicyConfig,
    PreferenceConfig,
    RolloutConfig,
    SFTConfig,
    StarConfig,
)
from .yaml_core import YamlError, dump, parse

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"


class RecipeError(LudusError):
    """A recipe or an override that cannot be used."""


class TrajectoriesConfig(Section):
    """Which episodes are kept to be read."""

    every: int = Field(25, gt=0, description="policy steps between two stored samples")
    episodes: int = Field(16, ge=0, description="episodes kept of such a step; whole groups come first")
    eval_episodes: int = Field(32, ge=0, description="episodes kept of each evaluation")


class Recipe(Section):
    """A whole run: model, environments, the phases of training in their order, evaluation."""

    name: str = Field(pattern=NAME, description="what the run folder is called: letters, digits, dots, dashes")
    seed: int = Field(0, ge=0, lt=2**63)
    threads: int | None = Field(None, gt=0, le=1024, description="threads that torch may use; all cores if unset")
    device: Device = "auto"
    model: ModelConfig
    envs: list[EnvConfig] = Field(min_length=1)
    engine: EngineConfig = EngineConfig()
    rollout: RolloutConfig = RolloutConfig()
    sampling: SamplingConfig = SamplingConfig()
    sft: SFTConfig | None = None
    star: StarConfig | None = None
    preference: PreferenceConfig | None = None
    policy: PolicyConfig | None = None
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    trajectories: TrajectoriesConfig = TrajectoriesConfig()
    trackers: TrackersConfig = TrackersConfig()
    runs_dir: str = "runs"

    def optimizers(self) -> dict[str, OptimizerConfig]:
        """The optimizers of its phases, by their section."""
        phases = (("sft", self.sft), ("star", self.star), ("preference", self.preference), ("policy", self.policy))
        found = {name: phase.optimizer for name, phase in phases if phase is not None}
        return found | ({"policy.critic": self.policy.critic.optimizer} if self.policy is not None else {})

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Recipe:
        for fault in _misfits(self):
            raise ValueError(fault)
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, changed by `dotted.key=value` overrides whose values are YAML.

    Raises RecipeError, one sentence for each fault, naming the file or the override.
    """
    data, origins = read_settings(path, overrides)
    if "chain" in data:
        raise RecipeError(f"{path} is a chain of runs and not one recipe; load it with ludus.load_training.")
    return make_recipe(data, str(path), origins)


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[tuple[Location, str]]]:
    """What a YAML file says, with the overrides written into it, and which override set which location."""
    try:
        data = parse(_read(Path(path)))
    except YamlError as error:
        raise RecipeError(f"{path}: {error}; correct the YAML.") from None
    if data is None:
        raise RecipeError(f"{path} is empty; a recipe needs at least name, model and envs.")
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a section of `key: value` lines, not {shown(data)}.")
    origins: list[tuple[Location, str]] = []
    for text in overrides:
        origins.append((_override(data, text), f"override {text}"))
    return data, origins


def make_recipe(data: dict[str, Any], source: str, origins: Sequence[tuple[Location, str]] = ()) -> Recipe:
    """The recipe that plain data describes. source, and for keys below a location its origin, head the sentences."""
    faults = _not_plain(data, (), [])
    if not faults:
        try:
            return Recipe.model_validate_json(json.dumps(data, ensure_ascii=True), strict=True)
        except ValidationError as error:
            faults = complaints(error, Recipe)
    lines = []
    for location, sentence in faults:
        head = next((text for prefix, text in reversed(origins) if location[: len(prefix)] == prefix), source)
        lines.append(f"{head}: {sentence}{'' if sentence.endswith('?') else '.'}")
    raise RecipeError("\n".join(lines))


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML; `load_recipe` of it gives an equal recipe."""
    return dump(recipe.model_dump(mode="json"))


def parse_setting(text: str, source: str = "override") -> tuple[str, Any]:
    """The key and the value of `key=value`. Raises RecipeError, which begins with source.

    The value is YAML, but nothing is the empty text and not null: a shell takes the quotes of `key=""` away.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise RecipeError(f"{source} {text}: write it as key=value, for instance seed=3.")
    try:
        return key, parse(value) if value.strip() else ""
    except YamlError as error:
        raise RecipeError(f"{source} {text}: the value is not YAML ({error}); put it in quotes.") from None


def _read(path: Path) -> str:
    if path.is_dir():
        raise RecipeError(f"{path} is a folder; name the YAML file in it.")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = [str(other) for other in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = get_close_matches(str(path), beside, n=1) or sorted(beside)[:5]
        hint = f"did you mean {' or '.join(near)}?" if near else "give the path of a YAML file."
        raise RecipeError(f"{path} does not exist; {hint}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from None


def _override(data: dict[str, Any], text: str) -> Location:
    """Write one `dotted.key=value` into data; the location that it set."""
    key, parsed = parse_setting(text)
    parts = key.split(".")
    here: Any = data
    location: list[int | str] = []
    for part in parts[:-1]:
        index = _index(here, part, text, location)
        location.append(index)
        if isinstance(here, list):
            here = here[int(index)]
            continue
        if here.get(index) is None:
            inside = tuple(location[2:] if location[0] == "chain" and "chain" in data else location)
            if inside == ("envs",):
                whole = ".".join(parts[: len(location)])
                raise RecipeError(
                    f"override {text}: there is no {whole} whose entries could be changed; give all of it, such as"
                    f" {whole}=[{{name: ludus/WordMath-v0}}]."
                )
            if isinstance(index, str) and not _may_hold_keys(inside):
                raise RecipeError(f"override {text}: {unknown_key(inside, Recipe)}")
            here[index] = {}
        here = here[index]
    index = _index(here, parts[-1], text, location)
    here[index] = parsed
    return (*location, index)


def _index(here: Any, part: str, text: str, location: Sequence[int | str]) -> int | str:
    """part as a key of the section `here`, or as an index of the list `here`."""
    where = dotted(tuple(location))
    if isinstance(here, dict):
        return part
    if not isinstance(here, list):
        raise RecipeError(f"override {text}: {where} is {shown(here)} and has no keys below it.")
    named = [
        i for i, item in enumerate(here) if where == "chain" and isinstance(item, dict) and item.get("name") == part
    ]
    if named:
        return named[0]
    if where == "chain" and not (part.isdecimal() and int(part) < len(here)):
        names = [str(item["name"]) for item in here if isinstance(item, dict) and "name" in item]
        near = get_close_matches(part, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}."
        raise RecipeError(f"override {text}: {part} is no stage of the chain; {hint}")
    if not part.isdecimal() or int(part) >= len(here):
        allowed = "it is empty" if not here else f"its last entry is {where}.{len(here) - 1}"
        raise RecipeError(f"override {text}: {where} is a list without an entry {part}; {allowed}.")
    return int(part)


def _may_hold_keys(location: Location) -> bool:
    """Whether a section may be made at a location: it is one in the model, or lies below free options."""
    return section_at(Recipe, location) is not None or "options" in location


def _not_plain(value: Any, location: Location, parents: list[int]) -> list[tuple[Location, str]]:
    """Faults of values that no JSON document has: keys that are not text, infinities, loops, other types."""
    key = dotted(location) or "the recipe"
    if id(value) in parents:
        return [(location, f"{key} contains itself; write its values out")]
    if isinstance(value, dict):
        wrong = [name for name in value if not isinstance(name, str)]
        if wrong:
            return [(location, f"{key} has the key {shown(wrong[0])}, which is not text; put it in quotes")]
        items: list[tuple[int | str, Any]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    elif isinstance(value, float) and not math.isfinite(value):
        return [(location, f"{key} = {value} must be a finite number")]
    elif isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        return [(location, f"{key} holds half of a surrogate pair, which is no character; remove it")]
    elif value is None or isinstance(value, bool | int | float | str):
        return []
    else:
        return [(location, f"{key} = {shown(value)} must be a number, text, true, false, null, a list or a section")]
    return [fault for name, item in items for fault in _not_plain(item, (*location, name), [*parents, id(value)])]


def _misfits(recipe: Recipe) -> list[str]:
    """Sentences about values that are right alone and wrong together."""
    found = [*_misfits_of_sizes(recipe), *_misfits_of_placement(recipe), *_misfits_of_learning(recipe)]
    for section, its in recipe.optimizers().items():
        if not all(0.0 <= beta < 1.0 for beta in its.betas):
            betas = list(its.betas)
            found.append(f"{section}.optimizer.betas = {betas} must lie in [0, 1), for instance [0.9, 0.99]")
        if recipe.model.lora and its.muon_lr is not None:
            found.append(
                f"{section}.optimizer.muon_lr = {its.muon_lr} is for whole matrices, and model.lora trains factors of"
                " them; leave it out"
            )
    for i, env in enumerate(recipe.envs):
        if any((env.name, env.options) == (other.name, other.options) for other in recipe.envs[:i]):
            found.append(f"envs.{i} repeats {env.name} with the same options; drop it and raise the other's weight")
    return found


def _misfits_of_sizes(recipe: Recipe) -> list[str]:
    found: list[str] = []
    tiny, engine, sampling = recipe.model.tiny, recipe.engine, recipe.sampling
    if tiny:
        if tiny.hidden_size % (2 * tiny.heads):
            found.append(
                f"model.tiny.hidden_size = {tiny.hidden_size} must be an even multiple of"
                f" model.tiny.heads = {tiny.heads}; take {2 * tiny.heads * -(-tiny.hidden_size // (2 * tiny.heads))}"
            )
        if tiny.heads % tiny.kv_heads:
            found.append(f"model.tiny.kv_heads = {tiny.kv_heads} must divide model.tiny.heads = {tiny.heads}")
        if engine.max_length > tiny.max_length:
            found.append(
                f"engine.max_length = {engine.max_length} exceeds model.tiny.max_length = {tiny.max_length};"
                " raise the second or lower the first"
            )
    if sampling.max_tokens >= engine.max_length:
        found.append(
            f"sampling.max_tokens = {sampling.max_tokens} leaves no room for a prompt in"
            f" engine.max_length = {engine.max_length}; lower the first or raise the second"
        )
    if sampling.stop_on_loop and sampling.stop_on_loop.min_tokens >= sampling.max_tokens:
        found.append(
            f"sampling.stop_on_loop.min_tokens = {sampling.stop_on_loop.min_tokens} is not below"
            f" sampling.max_tokens = {sampling.max_tokens}, so that no loop would ever be cut; lower the first or"
            " raise the second"
        )
    return found


def _misfits_of_placement(recipe: Recipe) -> list[str]:
    found: list[str] = []
    engine, policy = recipe.engine, recipe.policy
    if recipe.rollout.placement == "ray_async" and policy is None:
        found.append(
            "rollout.placement = ray_async is for policy optimisation, and there is no section policy; set it to ray"
        )
    wanted = "engine.sleep = true" if engine.sleep else "engine.transfer = ipc" if engine.transfer == "ipc" else ""
    if wanted and recipe.rollout.placement != "in_process":
        found.append(
            f"{wanted} is for an engine that shares the trainer's GPU, and rollout.placement ="
            f" {recipe.rollout.placement} plays in other processes; leave it out, or set rollout.placement: in_process"
        )
    if recipe.rollout.placement == "ray_async" and policy and policy.partial_tokens is not None:
        found.append(
            "rollout.placement = ray_async goes on with episodes under new weights by itself; leave out"
            " policy.partial_tokens, and policy.max_staleness, in whose place rollout.max_staleness stands"
        )
    return found


def _misfits_of_learning(recipe: Recipe) -> list[str]:
    found: list[str] = []
    sampling, policy, preference = recipe.sampling, recipe.policy, recipe.preference
    if recipe.sft is None and recipe.star is None and preference is None and policy is None:
        found.append("nothing would be trained; give a section sft, star, preference or policy")
    if 0 < sampling.temperature < LOWEST_TEMPERATURE:
        found.append(f"sampling.{too_cold(sampling.temperature)}".rstrip("."))
    if policy:
        if sampling.temperature == 0.0:
            found.append(
                "sampling.temperature = 0 makes all episodes of a group equal, so that policy has nothing to learn;"
                " raise it, for instance to 1.0"
            )
        if policy.minibatches > policy.groups * policy.group_size:
            found.append(
                f"policy.minibatches = {policy.minibatches} exceeds the"
                f" {policy.groups * policy.group_size} episodes of a step (groups * group_size); lower it"
            )
    if preference and preference.path is None:
        if sampling.temperature == 0.0:
            found.append(
                "sampling.temperature = 0 makes all episodes of a task equal, so that preference finds no pairs;"
                " raise it, for instance to 1.0, or give preference.path"
            )
        if preference.minibatches > preference.groups:
            found.append(
                f"preference.minibatches = {preference.minibatches} exceeds the {preference.groups} pairs that a round"
                " has at most (preference.groups); lower it"
            )
    playing = ["star"] if recipe.star else []
    playing += ["preference"] if preference and preference.path is None else []
    if playing and recipe.model.on_rewrite == "segment":
        found.append(
            f"model.on_rewrite = segment plays episodes in pieces, from which {playing[0]} cannot learn; set it to"
            " refuse"
        )
    if recipe.star and recipe.star.learner is not None and recipe.model.lora:
        found.append(
            "star.learner puts another model in the place of the policy, and model.lora trains adapters of this one;"
            " leave one of them out"
        )
    if recipe.star and recipe.star.group_size > 1 and sampling.temperature == 0.0:
        found.append(
            "sampling.temperature = 0 makes all episodes of a task equal; raise it, for instance to 1.0, or set"
            " star.group_size: 1"
        )
    return found
