"""League: every policy preset from the same cold start, for the same number of steps; what each has gained (an hour).

The cold start is that of the default recipe, cut short. Presets that distil have a teacher: the same model, trained
further by GRPO; long2short, which is for a second phase, goes on from where grpo ended. Each preset has the options
that a user would choose for so short a run, and no more.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ludus.newest_model import newest_model
from ludus.recipe import Recipe
from ludus.trainers.algorithms import ALGORITHMS

from .learning import accuracy, gain
from .options import Options
from .recipe_runs import Finished, branch_after_cold_start, read_recipe, train
from .table import Table, verdict

COLD = ("sft.steps=500", "sft.demonstrations=16000", "eval.final_tasks=1000", "policy.optimizer.final_lr_fraction=1.0")
STEPS, TEACHER_STEPS = 50, 150
QUICK = (
    "sft.steps=2",
    "sft.batch_size=4",
    "sft.demonstrations=8",
    "policy.groups=2",
    "policy.group_size=2",
    "eval.tasks=4",
    "eval.final_tasks=4",
)
NEEDS: dict[str, tuple[str, ...]] = {
    "ppo": ("policy.options={lam: 1.0}",),
    "ppo_kl": (
        "policy.minibatches=2",
        "policy.options={lam: 1.0, kl_target: 0.004}",
        "policy.groups=64",
        "policy.group_size=1",
    ),
    "long2short": ("policy.options={length_reward: 0.1, std: none}",),
    "gspo": ("policy.minibatches=2",),
    "kimi_k15": ("policy.minibatches=2", "policy.options={length_reward: 0.05}"),
}
"""Settings beside those that all have: a price on leaving the old policy only matters where several steps are made, and
where few answers are right, a large reward for short ones is one for guessing. A critic that begins to learn with the
policy misleads it where advantages lean on it: with a lam of 0.95 ppo ended where it began, and ppo_kl far below; and
where no clip bounds a step, a minibatch of four hard tasks does the same, so that ppo_kl has as many tasks as episodes.
"""
SECOND = ("long2short",)
"""Presets that go on from where grpo ended."""


def run(options: Options) -> list[Table]:
    """The table of all presets, best first."""
    seeds = options.seeds[:1] if options.quick else options.seeds
    names = ["grpo", "long2short", "opd"] if options.quick else sorted(ALGORITHMS)
    with ThreadPoolExecutor(options.jobs) as pool:
        colds = dict(zip(seeds, pool.map(lambda seed: _cold(seed, options), seeds), strict=True))
        teachers = dict(zip(seeds, pool.map(lambda seed: _teacher(seed, colds[seed], options), seeds), strict=True))
        done: dict[tuple[str, int], Finished] = {}
        for phase in ([n for n in names if n not in SECOND], [n for n in names if n in SECOND]):
            before = {seed: done.get(("grpo", seed), teachers[seed]) for seed in seeds}
            runs = {
                (name, seed): pool.submit(_preset, name, seed, colds[seed], teachers[seed], before[seed], options)
                for name in phase
                for seed in seeds
            }
            done |= {key: future.result() for key, future in runs.items()}
    return [_table({name: [done[name, seed] for seed in seeds] for name in names}, seeds, options)]


def _recipe(seed: int, options: Options, *overrides: str) -> Recipe:
    quick = QUICK if options.quick else ()
    return read_recipe("wordmath.yaml", *COLD, *quick, f"seed={seed}", *options.overrides, *overrides)


def _cold(seed: int, options: Options) -> Finished:
    recipe = _recipe(seed, options, "policy=null", "checkpoint.every=1000000")
    return train(recipe, f"league-seed{seed}-cold", options)


def _teacher(seed: int, cold: Finished, options: Options) -> Finished:
    steps = 2 if options.quick else TEACHER_STEPS
    recipe = _recipe(seed, options, f"policy.steps={steps}", "eval.every=1000000")
    return train(recipe, f"league-seed{seed}-teacher", options, branch_after_cold_start(cold.folder))


def _preset(name: str, seed: int, cold: Finished, teacher: Finished, first: Finished, options: Options) -> Finished:
    """first: the run that those go on from that are for a second phase."""
    overrides = [f"policy.algorithm={name}", "policy.options={}", *NEEDS.get(name, ())]
    overrides += [f"policy.steps={1 if options.quick else STEPS}", "eval.every=1000000", "checkpoint.every=1000000"]
    if name in ("opd", "kdrl"):
        overrides.append(f"policy.teacher={teacher.folder}")
    fill = None if name in SECOND else branch_after_cold_start(cold.folder)
    if name in SECOND:
        overrides += ["model.tiny=null", f"model.path={newest_model(first.folder)}", "sft=null"]
    recipe = _recipe(seed, options, *overrides)
    return train(recipe, f"league-seed{seed}-{name}", options, fill)


def _table(runs: dict[str, list[Finished]], seeds: tuple[int, ...], options: Options) -> Table:
    columns: dict[str, str] = {"preset": "", "gain": "+.3f", "95% interval": ""}
    columns |= {f"seed {seed}": "" for seed in seeds} | {"seconds": ".0f", "target": ""}
    table = Table(f"What {STEPS} steps of each preset add to the same cold start: held-out greedy accuracy", columns)
    rows: list[tuple[Any, ...]] = []
    for name, finished in runs.items():
        first = "start" if name in SECOND else "after_sft"
        pairs = [(run.evaluation(first) or {}, run.end) for run in finished]
        mean = sum(gain(*pair) for pair in pairs) / len(pairs)
        half = 1.96 * math.sqrt(sum(_variance(row) for pair in pairs for row in pair)) / len(pairs)
        shown = [f"{before['accuracy']:.3f} to {accuracy(end)}" for before, end in pairs]
        seconds = sum(run.phase_seconds(first, "final") for run in finished) / len(finished)
        interval = f"{mean - half:+.3f} to {mean + half:+.3f}"
        rows.append((name, mean, interval, *shown, seconds, verdict(mean - half, "at least", 0.0)))
    for row in sorted(rows, key=lambda row: -row[1]):
        table.add(*row)
    table.notes.append(f"Runs at a time: {options.jobs}{', one thread each' if options.jobs > 1 else ''}.")
    table.notes.append("Intervals are of the tasks asked, over all seeds together; `seconds` are those of the phase.")
    return table


def _variance(row: dict[str, Any]) -> float:
    """Of an accuracy over so many tasks."""
    return float(row["accuracy"] * (1 - row["accuracy"]) / max(row["tasks"], 1))
