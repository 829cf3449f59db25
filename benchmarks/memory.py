"""Peak resident memory of `make train`: the default recipe in a process of its own."""

from __future__ import annotations

from dataclasses import replace

from .options import Options
from .recipe_runs import read_recipe, train
from .table import Table, verdict

QUICK = ("sft.steps=2", "sft.demonstrations=64", "policy.steps=2", "eval.final_tasks=8")


def run(options: Options) -> list[Table]:
    """The table of one run."""
    overrides = (*(QUICK if options.quick else ()), *options.overrides)
    # A run that was found says nothing about its memory.
    done = train(read_recipe("wordmath.yaml", *overrides), "memory", replace(options, fresh=True, jobs=1))
    assert done.peak_bytes is not None
    peak = done.peak_bytes / 2**30
    table = Table("Peak resident memory of training", {"run": "", "GiB": ".2f", "seconds": ".0f", "target": ""})
    name = f"recipes/wordmath.yaml {' '.join(overrides)}".strip()
    table.add(name, peak, done.seconds, verdict(peak, "at most", 2.0))
    table.notes.append("Measured by the kernel (ru_maxrss), once: memory hardly varies between runs.")
    return [table]
