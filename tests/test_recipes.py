"""Every recipe that is shipped runs: two steps of each phase, with a small twin where the model lives on the hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from twins import write_qwen25_twin

from ludus.chain import Chain, load_training
from ludus.run_folder import RunFolder

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
TWO_STEPS = (
    ("sft", ["sft.steps=2", "sft.batch_size=4"]),
    ("star", ["star.rounds=2", "star.groups=4", "star.steps=2", "star.batch_size=4"]),
    ("policy", ["policy.steps=2"]),
)
"""The overrides that cut a stage of a chain short, by what it does."""
TWINS = {"Qwen/Qwen2.5-0.5B-Instruct": write_qwen25_twin, "Qwen/Qwen2.5-1.5B-Instruct": write_qwen25_twin}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_trains_two_steps(path: Path, tmp_path: Path, shared_data: Path) -> None:
    plain = yaml.safe_load(path.read_text())
    if plain["model"].get("lora"):
        pytest.importorskip("peft", reason="peft is in the extra 'lora'")
    overrides = [
        "device=cpu",
        "eval.tasks=4",
        "eval.final_tasks=4",
        "policy.steps=2",
        "policy.groups=2",
        "policy.group_size=2",
        "engine.slots=8",
        "trajectories.every=1",
    ]
    if "path" in plain["model"]:
        twin = TWINS[plain["model"]["path"]](tmp_path / "twin")
        overrides += [f"model.path={twin}", "sampling.max_tokens=24", "engine.max_length=1600"]
    if "sft" in plain:
        overrides += ["sft.steps=2", "sft.batch_size=4"]
    stages = plain.get("chain", [])
    for stage in stages:
        short = [change for phase, changes in TWO_STEPS if phase in stage for change in changes]
        overrides += [f"chain.{stage['name']}.{change}" for change in short]
    run = tmp_path / "run"
    command = [sys.executable, "-m", "ludus", "train", str(path), *overrides, "--out", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    places = [run / "stages" / f"{number:02}-{stage['name']}" for number, stage in enumerate(stages, 1)] or [run]
    runs = [RunFolder(place) for place in places]
    for one in runs:
        recipe, rows = one.recipe, one.metrics()
        for phase in ("sft", "star", "policy"):
            taken = [row["step"] for row in rows if row["phase"] == phase]
            assert taken == ([] if getattr(recipe, phase) is None else [1, 2])
        assert all(abs(row["kl_sampler"]) < 1e-4 for row in rows if row["phase"] == "policy" and "kl_sampler" in row)
        assert (one.path / "report.html").stat().st_size > 10_000
    assert {row["stage"] for row in runs[-1].metrics() if row["phase"] == "eval"} >= {"final"}
    assert (run / "report.html").is_file()


def test_recipes_load_and_say_where_they_run() -> None:
    assert len(RECIPES) >= 5
    for path in RECIPES:
        found = load_training(path)
        assert (found.stages[-1].recipe if isinstance(found, Chain) else found).policy is not None, path
        assert path.read_text().startswith("# "), f"{path} begins with a comment that says what it is"
