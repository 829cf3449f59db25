"""train_chain: the stages of a chain one after the other, resumable at any moment.

Invariant: what a stage does follows from the chain's recipe and the newest checkpoint of the stage that it begins with,
so a chain that is killed and resumed ends with the weights of one that was not (tests/test_chain.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .agents.model import prepare_model
from .chain import START, Chain, Stage
from .chain_folder import ChainFolder
from .chain_report import write_chain_report
from .recipe import Recipe, dump_recipe
from .report_data import EnvScores
from .run_folder import RunFolder
from .sandbox.errors import LudusError
from .train import chosen_algorithm, env_maker, newest_model, train_recipe
from .trainers.checkpoint import write_folder
from .trainers.recorder import Show
from .wandb_log import wandb_package
from .whole_file import write_whole


class ChainError(LudusError):
    """A stage that cannot be run; the sentence names it."""


def train_chain(folder: ChainFolder, *, display: Show) -> dict[str, list[EnvScores]]:
    """Run what is left of a chain in its folder, and return the held-out scores of each stage by its name.

    Whatever is wrong with a stage is a LudusError before the first one begins, as far as it can be known then.
    """
    chain = folder.chain
    for stage in chain.stages:
        _check(stage)
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
        run = RunFolder.resume(place)
        write_whole(place / "recipe.yaml", dump_recipe(recipe))  # the folder may have been moved, and paths with it
    else:
        shutil.rmtree(place, ignore_errors=True)  # killed before it held anything
        run = RunFolder.create(recipe, place)
    with run:
        try:
            train_recipe(recipe, run, resume=begun, display=display)
        except LudusError as error:
            if not begun:
                run.remove_if_unused()
            raise ChainError(f"stage {stage.name}: {error}") from error


def stage_recipe(folder: ChainFolder, stage: Stage) -> Recipe:
    """The recipe of a stage with the model that it begins with, which must be there by now."""
    recipe = stage.recipe
    path = _model(folder, stage.origin)
    changes: dict[str, object] = {"model": recipe.model.model_copy(update={"path": path, "tiny": None})}
    if recipe.star is not None and recipe.star.learner is not None:
        learner = _model(folder, recipe.star.learner)
        changes["star"] = recipe.star.model_copy(update={"learner": learner})
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


def _check(stage: Stage) -> None:
    """What else can be known to be wrong with a stage before its model is there."""
    recipe = stage.recipe
    try:
        if recipe.trackers.wandb is not None:
            wandb_package()
        if recipe.policy is not None:
            chosen_algorithm(recipe.policy)
        if recipe.preference is not None and recipe.preference.path is not None:
            file = Path(recipe.preference.path)
            if not file.is_file():
                raise ChainError(f"preference.path = {file} is no file; give one with pairs.")
        for env in recipe.envs:
            for split in (env.options.get("split", "train"), recipe.eval.split):
                env_maker(env, split)().close()
    except LudusError as error:
        raise ChainError(f"stage {stage.name}: {error}") from error
