"""Placement: one recipe in process, by Ray, and by Ray asynchronously: the same held-out accuracy (an hour).

The default recipe, from the same supervised start to its end: where learning is steepest, two runs of any one
placement differ more than placements may. In process a TorchEngine samples, in the Ray worker vLLM does. Where the
worker has a TorchEngine, too, nothing may differ, which a short run shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from ludus.agents.trajectory import Episode
from ludus.recipe import Recipe
from ludus.run_folder import RunFolder, read_metrics
from ludus.trainers.checkpoint import list_checkpoints

from .league import QUICK
from .learning import accuracy
from .measure import need
from .options import Options
from .recipe_runs import Finished, branch_after_cold_start, read_recipe, train
from .table import Table

HOME = "in process, TorchEngine"
PLACEMENTS: dict[str, tuple[str, ...]] = {
    HOME: (),
    "Ray, VLLMEngine": ("engine.kind=vllm", "rollout.placement=ray"),
    "Ray asynchronous, VLLMEngine": ("engine.kind=vllm", "rollout.placement=ray_async", "rollout.max_staleness=1"),
}
HEADS = ("model.tiny.heads=4", "model.tiny.kv_heads=4")
"""Of 32 numbers each, in place of eight of 16, which vLLM's build for the CPU does not have; as many parameters."""
SHORT = 3
MARGIN = 0.05
T95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)
"""Student's t: 90% lie between plus and minus this, by degrees of freedom from 1 on."""
Z95 = 1.645


@dataclass(frozen=True)
class Difference:
    """Between two placements, seed by seed. Both halves are of the 90% interval of the mean.

    by_seeds: from the scatter of the differences (Student's t, a degree of freedom less than seeds); None of one seed.
    It holds all there is: the luck of training and, as each accuracy is of so many tasks, that of the tasks. by_tasks:
    the second part alone, from the binomial variance, as if no task were asked twice. Few seeds may agree by chance; so
    the interval is the wider of the two.
    """

    mean: float
    by_seeds: float | None
    by_tasks: float

    @classmethod
    def of(cls, ours: Sequence[tuple[float, int]], theirs: Sequence[tuple[float, int]]) -> Difference:
        """ours, theirs: accuracy and number of tasks of each seed."""
        gaps = [a - b for (a, _), (b, _) in zip(ours, theirs, strict=True)]
        count = len(gaps)
        by_tasks = Z95 * math.sqrt(sum(p * (1 - p) / tasks for p, tasks in [*ours, *theirs])) / count
        by_seeds = T95[min(count - 1, len(T95)) - 1] * stdev(gaps) / math.sqrt(count) if count > 1 else None
        return cls(mean(gaps), by_seeds, by_tasks)

    @property
    def low(self) -> float:
        """Of the interval."""
        return self.mean - max(self.by_seeds or 0.0, self.by_tasks)

    @property
    def high(self) -> float:
        """Of the interval."""
        return self.mean + max(self.by_seeds or 0.0, self.by_tasks)

    def verdict(self) -> str:
        """Whether the interval lies within the margin."""
        if self.by_seeds is None:
            return f"within ±{MARGIN:g}: one seed cannot tell"
        return f"within ±{MARGIN:g}: {'met' if self.low >= -MARGIN and self.high <= MARGIN else 'MISSED'}"


def run(options: Options) -> list[Table]:
    """The table of accuracies and that of what is the same to the last bit."""
    seeds = options.seeds[:1] if options.quick else options.seeds
    need("ray")
    if any(_recipe(seeds[0], options, *PLACEMENTS[name]).engine.kind == "vllm" for name in PLACEMENTS):
        need("vllm")
    with ThreadPoolExecutor(options.jobs) as pool:
        colds = dict(zip(seeds, pool.map(lambda seed: _cold(seed, options), seeds), strict=True))
        runs = {
            (name, seed): pool.submit(_placed, name, seed, colds[seed], options)
            for seed in seeds
            for name in PLACEMENTS
        }
        pair = [pool.submit(_short, placement, seeds[0], colds[seeds[0]], options) for placement in (None, "ray")]
        done = {key: future.result() for key, future in runs.items()}
        here, there = (future.result() for future in pair)
    by_name = {name: [done[name, seed] for seed in seeds] for name in PLACEMENTS}
    return [_accuracies(by_name, seeds, options), same_bits(here, there)]


def _recipe(seed: int, options: Options, *overrides: str) -> Recipe:
    """What the user sets comes last, so that `--set engine.kind=torch` compares placements alone."""
    quick = QUICK if options.quick else ()
    return read_recipe("wordmath.yaml", *HEADS, *quick, f"seed={seed}", *overrides, *options.overrides)


def _cold(seed: int, options: Options) -> Finished:
    recipe = _recipe(seed, options, "policy=null", "checkpoint.every=1000000")
    return train(recipe, f"placement-seed{seed}-cold", options)


def _placed(name: str, seed: int, cold: Finished, options: Options) -> Finished:
    overrides = ["eval.every=1000000", "checkpoint.every=1000000", *PLACEMENTS[name]]
    overrides += ["policy.steps=1"] if options.quick else []
    label = f"placement-seed{seed}-{''.join(c if c.isalnum() else '-' for c in name)}"
    return train(_recipe(seed, options, *overrides), label, options, branch_after_cold_start(cold.folder))


def _short(placement: str | None, seed: int, cold: Finished, options: Options) -> Finished:
    """A few steps of which every episode is kept."""
    overrides = [f"policy.steps={1 if options.quick else SHORT}", "eval.every=1", "eval.final_tasks=50"]
    overrides += ["trajectories.every=1", "trajectories.episodes=64"]
    if placement is not None:
        overrides.append(f"rollout.placement={placement}")
    label = f"placement-seed{seed}-short-{placement or 'in-process'}"
    return train(_recipe(seed, options, *overrides), label, options, branch_after_cold_start(cold.folder))


def _accuracies(runs: dict[str, list[Finished]], seeds: Sequence[int], options: Options) -> Table:
    columns: dict[str, str] = {"placement": ""} | {f"seed {seed}": "" for seed in seeds}
    columns |= {"mean": ".3f", "difference": "+.3f", "90% interval": "", "half, by seeds": ".3f"}
    columns |= {"half, by tasks": ".3f", "seconds": ".0f", "target": ""}
    table = Table("The recipe from one supervised start to its end: held-out greedy accuracy by placement", columns)
    ends = {name: [(run.end["accuracy"], run.end["tasks"]) for run in found] for name, found in runs.items()}
    for name, found in runs.items():
        shown = [accuracy(run.end) for run in found]
        seconds = mean(run.phase_seconds("after_sft", "final") for run in found)
        average = mean(value for value, _ in ends[name])
        if name == HOME:
            table.add(name, *shown, average, None, None, None, None, seconds, None)
            continue
        gap = Difference.of(ends[name], ends[HOME])
        interval = f"{gap.low:+.3f} to {gap.high:+.3f}"
        table.add(name, *shown, average, gap.mean, interval, gap.by_seeds, gap.by_tasks, seconds, gap.verdict())
    colds = [run.evaluation("after_sft") or {} for run in runs[HOME]]
    table.notes += [
        f"After the supervised start: {', '.join(accuracy(row) for row in colds)}.",
        "Differences are from `in process`, seed by seed; the 90% interval of their mean is the wider of two.",
        "By seeds: Student's t, a degree of freedom less than seeds; it holds the luck of training and of the tasks.",
        "By tasks: the binomial part alone, below which the first is believed to be by chance, for seeds are few.",
        f"Runs at a time: {options.jobs}{', one thread each' if options.jobs > 1 else ''}; `seconds` of the phase.",
    ]
    table.notes.append(f"The default recipe, with {', '.join(HEADS)}.")
    if options.overrides:
        table.notes.append(f"Set besides: {', '.join(options.overrides)}.")
    return table


def same_bits(here: Finished, there: Finished) -> Table:
    """What of two runs is the same: episodes as they were kept, curves but for seconds, the last weights."""
    table = Table(
        "Ray with one worker that has a TorchEngine, and in process: the same run",
        {"what": "", "in process": ",d", "Ray": ",d", "the same bits": "", "target": ""},
    )
    ours, theirs = _contents(here), _contents(there)
    for name, mine in ours.items():
        same = bool(mine) and mine == theirs[name]
        row = ("yes", "the same: met") if same else ("no", "the same: MISSED")
        table.add(name, len(mine), len(theirs[name]), *row)
    table.notes.append("Of an episode: tokens, log-probabilities, versions, verdict and rewards.")
    return table


def _contents(run: Finished) -> dict[str, list[Any]]:
    from safetensors import safe_open

    from ludus.agents.weights import digest

    folder = RunFolder(run.folder)
    kept = [Episode.from_json(row).to_json() for name in folder.episode_labels() for row in folder.read_episodes(name)]
    rows = [row for row in read_metrics(run.folder) if row["phase"] in ("policy", "eval")]
    newest = list_checkpoints(run.folder / "checkpoints")[-1].path / "model.safetensors"
    with safe_open(str(newest), framework="pt") as file:
        tensors = [(name, digest(file.get_tensor(name))) for name in sorted(file.keys())]
    return {
        "episodes": [{**row, "seconds": None, "verify_seconds": None} for row in kept],
        "rows of curves": [{key: value for key, value in row.items() if "second" not in key} for row in rows],
        "tensors of the policy": tensors,
    }
