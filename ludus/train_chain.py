"""train_chain: the stages of a chain one after the other, resumable at any moment.

Invariant: what a stage does follows from the chain's recipe and the newest checkpoint of the stage that it begins with,
so a chain that is killed and resumed ends with the weights of one that was not (tests/test_chain.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import torch

from .agents.model import check_place, choose_device, outline_model, prepare_model
from .algorithm_choice import chosen_algorithm
from .arenas import env_maker
from .chain import START, Chain, Stage, named_models, not_before
from .chain_folder import ChainFolder
from .chain_report import write_chain_report
from .newest_model import newest_model
from .recipe import Recipe, dump_recipe
from .report_data import EnvScores
from .run_folder import CHAIN, RunFolder
from .sandbox.errors import LudusError
from .train import train_recipe
from .trainers.checkpoint import write_folder
from .trainers.optimizer import adamw_class
from .trainers.recorder import Show
from .wandb_log import check_wandb
from .whole_file import write_whole

WRITTEN = ".written.yaml"
"""What a chain last wrote into a stage's recipe.yaml."""


class ChainError(LudusError):
    """A stage that cannot be run; the sentence names it."""


def train_chain(folder: ChainFolder, *, display: Show) -> dict[str, list[EnvScores]]:
    """Run what is left of a chain in its folder, and return the held-out scores of each stage by its name.

    Whatever is wrong with a stage is a LudusError before the first one begins, as far as it can be known then.
    """
    chain = folder.chain
    for stage in chain.stages:
        if not folder.finished(stage):
            _check(stage, [other.name for other in chain.stages[: stage.number - 1]])
    if chain.stages[0].recipe.model.tiny is not None and not folder.start.exists():
        _make_start(folder, chain)
    for stage in chain.stages:
        if folder.finished(stage):
            continue
        display.note(f"Stage {stage.number} of {len(chain.stages)}: {stage.name}, from {stage.origin}.")
        _train(folder, stage, display)
        folder.finish(stage)
        write_chain_report(folder.path)
    display.note(f"All stages: {write_chain_report(folder.path)}.")
    return {stage.name: folder.scores(stage) for stage in chain.stages}


def _train(folder: ChainFolder, stage: Stage, display: Show) -> None:
    recipe, place = stage_recipe(folder, stage), folder.stage(stage)
    begun = (place / "recipe.yaml").is_file()
    if begun:
        _check_recipe(stage, recipe, place)
        run = RunFolder.resume(place)
        write_whole(place / "recipe.yaml", dump_recipe(recipe))  # the folder may have been moved, and paths with it
    else:
        if any((place / "checkpoints").glob("*")):
            raise ChainError(
                f"stage {stage.name}: {place / 'recipe.yaml'} is missing, and there are checkpoints beside it; put it"
                f" back, or move {place} away to begin the stage anew."
            )
        shutil.rmtree(place, ignore_errors=True)  # killed before it held anything
        run = RunFolder.create(recipe, place)
    with run:
        write_whole(place / WRITTEN, dump_recipe(recipe))
        try:
            train_recipe(recipe, run, resume=begun, display=display)
        except LudusError as error:
            if not begun:
                run.remove_if_unused()
            raise ChainError(f"stage {stage.name}: {error}") from error


def _check_recipe(stage: Stage, recipe: Recipe, place: Path) -> None:
    """Refuse a stage's recipe.yaml that somebody has changed: it would be written over without a word."""
    file, written = place / "recipe.yaml", place / WRITTEN
    if not written.is_file():
        return  # killed before that
    if file.read_bytes() not in (written.read_bytes(), dump_recipe(recipe).encode()):
        raise ChainError(
            f"stage {stage.name}: {file} was changed, and the chain writes it from its {CHAIN}; change that"
            f" instead, and put back what {written} says."
        )


def stage_recipe(folder: ChainFolder, stage: Stage) -> Recipe:
    """The recipe of a stage with the models that it names, which must be there by now."""
    recipe = stage.recipe
    path = _model(folder, stage.origin)
    changes: dict[str, object] = {"model": recipe.model.model_copy(update={"path": path, "tiny": None})}
    for key, name in named_models(recipe).items():
        phase, setting = key.split(".")
        changes[phase] = getattr(recipe, phase).model_copy(update={setting: _model(folder, name)})
    return recipe.model_copy(update=changes)


def _model(folder: ChainFolder, name: str) -> str:
    """The model that is meant by the name of a stage, by START, or by a path or a name on the hub."""
    if name == START:
        return folder.chain.stages[0].recipe.model.path or str(folder.start)
    place = folder.named(name)
    return newest_model(name if place is None else place)


def _make_start(folder: ChainFolder, chain: Chain) -> None:
    model, tokenizer = prepare_model(chain.stages[0].recipe.model, chain.seed, "cpu")

    def write(place: Path) -> None:
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)

    write_folder(folder.start, write)


def _check(stage: Stage, before: Sequence[str]) -> None:
    """What else can be known to be wrong with a stage before its model is there. before: the stages before it."""
    recipe = stage.recipe
    try:
        if recipe.trackers.wandb is not None:
            check_wandb(recipe.trackers.wandb)
        device = torch.device(choose_device(recipe.device))
        for optimizer in recipe.optimizers().values():
            adamw_class(optimizer.kind, device)
        if recipe.policy is not None:
            chosen_algorithm(recipe.policy, recipe.sampling.max_tokens, recipe.rollout.placement)
        if recipe.preference is not None and recipe.preference.path is not None:
            file = Path(recipe.preference.path)
            if not file.is_file():
                raise ChainError(f"preference.path = {file} is no file; give one with pairs.")
        for key, name in named_models(recipe).items():
            _check_model(key, name, before)
        if recipe.model.lora is not None:
            outline_model(recipe.model)  # that of the chain's start has the same layers
        for env in recipe.envs:
            for split in (env.options.get("split", "train"), recipe.eval.split):
                env_maker(env, split)().close()
    except LudusError as error:
        raise ChainError(f"stage {stage.name}: {error}") from error


def _check_model(key: str, name: str, before: Sequence[str]) -> None:
    """Refuse a name that is neither a stage nor a model here, and not likely to be one on the hub."""
    if name == START or name in before:
        return
    if "/" not in name and not Path(name).exists() and get_close_matches(name, [START, *before], n=1, cutoff=0.7):
        raise ChainError(f"{key} = {name} {not_before(name, before)}")
    try:
        check_place(newest_model(name))
    except LudusError as error:
        raise ChainError(f"{key}: {error}") from error
