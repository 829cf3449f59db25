"""What GRPO adds: the default recipe beside two controls, seed by seed (3 seeds: an hour on two cores).

Control 1, supervised training alone, has the seconds of the recipe's cold start and policy phase together, for the same
imperfect demonstrations. Control 2 continues the recipe's own cold start with its rewards shuffled over the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ludus.recipe import Recipe

from .measure import BenchmarkError
from .options import Options
from .recipe_runs import Finished, branch_after_cold_start, read_recipe, train
from .table import Table, verdict

QUICK = (
    "sft.steps=2",
    "sft.batch_size=4",
    "sft.demonstrations=8",
    "policy.steps=1",
    "policy.groups=2",
    "policy.group_size=2",
    "eval.tasks=4",
    "eval.final_tasks=4",
)


def run(options: Options) -> list[Table]:
    """The table of all runs, and how they stand against the targets."""
    seeds = options.seeds[:1] if options.quick else options.seeds
    with ThreadPoolExecutor(options.jobs) as pool:
        whole = {seed: pool.submit(_whole, seed, options) for seed in seeds}
        supervised, shuffled = {}, {}
        for seed, future in whole.items():
            done = future.result()
            supervised[seed] = pool.submit(_supervised, seed, done, options)
            shuffled[seed] = pool.submit(_shuffled, seed, done, options)
        runs = {seed: (whole[seed].result(), supervised[seed].result(), shuffled[seed].result()) for seed in seeds}
    return [_table(runs, options)]


def _recipe(seed: int, options: Options, *overrides: str) -> Recipe:
    quick = QUICK if options.quick else ()
    recipe = read_recipe("wordmath.yaml", *quick, f"seed={seed}", *options.overrides, *overrides)
    if recipe.sft is None or (recipe.policy is None and "policy=null" not in overrides):
        raise BenchmarkError("learning compares two phases; leave the sections sft and policy in the recipe.")
    return recipe


def _whole(seed: int, options: Options) -> Finished:
    # All checkpoints stay, so that control 2 finds the last one of the cold start.
    return train(_recipe(seed, options, "checkpoint.keep=1000"), f"learning-seed{seed}-recipe", options)


def _supervised(seed: int, whole: Finished, options: Options) -> Finished:
    """Control 1.

    Its learning rate falls over the whole of its longer run just as the recipe's falls over the cold start: continued
    from the end of the cold start it would be stuck at a tenth of the rate, or would have to be raised again.
    """
    cold_s = whole.phase_seconds("start", "after_sft")
    seconds = cold_s + whole.phase_seconds("after_sft", "final")
    recipe = _recipe(seed, options)
    assert recipe.sft is not None
    # A little more than the time allows, so that it is the time that ends the run.
    steps = math.ceil(1.05 * recipe.sft.steps * seconds / cold_s)
    overrides = (
        f"sft.steps={steps}",
        f"sft.max_seconds={max(seconds, 0.1):.1f}",
        "policy=null",
        "checkpoint.every=1000000",
    )
    return train(_recipe(seed, options, *overrides), f"learning-seed{seed}-supervised", options)


def _shuffled(seed: int, whole: Finished, options: Options) -> Finished:
    recipe = _recipe(seed, options, "policy.shuffle_rewards=true")
    return train(recipe, f"learning-seed{seed}-shuffled", options, branch_after_cold_start(whole.folder))


def _table(runs: dict[int, tuple[Finished, Finished, Finished]], options: Options) -> Table:
    columns = {"seed": "d", "run": "", "after the cold start": "", "at the end": "", "gain": "+.3f", "seconds": ".0f"}
    table = Table("What GRPO adds: held-out greedy accuracy [95% Wilson interval]", columns)
    for seed, (whole, supervised, shuffled) in runs.items():
        cold, end, other = whole.evaluation("after_sft"), whole.end, supervised.end
        assert cold is not None
        table.add(seed, "recipe: cold start, then GRPO", accuracy(cold), accuracy(end), gain(cold, end), whole.seconds)
        table.add(seed, "supervised training alone", None, accuracy(other), gain(cold, other), supervised.seconds)
        begun = shuffled.evaluation("after_sft")
        assert begun is not None
        name = "GRPO with shuffled rewards"
        table.add(seed, name, accuracy(begun), accuracy(shuffled.end), gain(begun, shuffled.end), shuffled.seconds)
    wholes = [found[0] for found in runs.values()]
    colds = [(whole.evaluation("after_sft") or {})["accuracy"] for whole in wholes]
    shuffles = [gain(found[2].evaluation("after_sft") or {}, found[2].end) for found in runs.values()]
    ends = [whole.end["accuracy"] for whole in wholes]
    table.notes += [
        f"After the cold start {_list(colds)}: {verdict(max(colds), 'at most', 0.5)}.",
        f"At the end {_list(ends)}: {verdict(min(ends), 'at least', 0.9)}.",
        f"Gain with shuffled rewards {_list(shuffles)}: {verdict(max(shuffles), 'at most', 0.05)}.",
        f"Seconds {_list([whole.seconds for whole in wholes])}: "
        f"{verdict(max(whole.seconds for whole in wholes), 'at most', 480)}.",
        "Supervised training alone is compared with the recipe's cold start; its seconds hold one evaluation less.",
        f"Runs at a time: {options.jobs}{', one thread each' if options.jobs > 1 else ''}.",
    ]
    reused = [str(run.folder) for found in runs.values() for run in found if run.reused]
    if reused:
        table.notes.append(f"Found finished and not trained anew: {', '.join(reused)}.")
    return table


def accuracy(row: dict[str, Any]) -> str:
    """An evaluation in words: accuracy and its interval."""
    return f"{row['accuracy']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def gain(before: dict[str, Any], after: dict[str, Any]) -> float:
    """How much accuracy was gained."""
    return after["accuracy"] - before["accuracy"]


def _list(values: Sequence[float]) -> str:
    spec = ".0f" if max(values) > 10 else ".3f"
    return ", ".join(format(value, spec) for value in values)
