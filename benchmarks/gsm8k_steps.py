"""Real text: the GSM8KSteps recipes, before and after GRPO on the test file, beside the regular expression."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from .learning import QUICK as SMALL
from .learning import accuracy, gain
from .options import Options
from .recipe_runs import Finished, read_recipe, train
from .table import Table, verdict

SETTINGS = ("copy", "infer")


def run(options: Options) -> list[Table]:
    """The table of both settings."""
    overrides = (*(SMALL if options.quick else ()), *options.overrides)
    recipes = {setting: read_recipe(f"gsm8k_steps_{setting}.yaml", *overrides) for setting in SETTINGS}
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = {name: pool.submit(train, recipe, f"gsm8k-{name}", options) for name, recipe in recipes.items()}
        runs = {setting: future.result() for setting, future in futures.items()}
    return [_table(runs)]


def _table(runs: dict[str, Finished]) -> Table:
    columns = {"setting": "", "before GRPO": "", "after GRPO": "", "gain": "+.3f", "baselines": "", "seconds": ".0f"}
    table = Table("GSM8KSteps: greedy accuracy on the test file [95% Wilson interval]", columns)
    for setting, done in runs.items():
        before, after = done.evaluation("after_sft") or done.evaluation("start"), done.end
        assert before is not None
        baselines = ", ".join(f"{name} {value:.4f}" for name, value in after["baselines"].items()) or None
        table.add(setting, accuracy(before), accuracy(after), gain(before, after), baselines, done.seconds)
        apart = "above" if after["low"] > before["high"] else "NOT above"
        note = f"{setting}: {after['tasks']} tasks; the interval after lies {apart} the one before"
        if setting == "copy":
            note += f"; accuracy {verdict(after['accuracy'], 'at least', 0.9)}"
        table.notes.append(f"{note}; seconds {verdict(done.seconds, 'at most', 900)}.")
    reused = [str(done.folder) for done in runs.values() if done.reused]
    if reused:
        table.notes.append(f"Found finished and not trained anew: {', '.join(reused)}.")
    return table
