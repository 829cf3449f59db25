"""Every recipe that is shipped runs: two steps of each phase, with a small twin where the model lives on the hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from twins import write_qwen25_twin

from ludus.recipe import load_recipe
from ludus.run_folder import RunFolder

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
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
    if plain.get("sft"):
        overrides += ["sft.steps=2", "sft.batch_size=4"]
    run = tmp_path / "run"
    command = [sys.executable, "-m", "ludus", "train", str(path), *overrides, "--out", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = RunFolder(run).metrics()
    assert [row["step"] for row in rows if row["phase"] == "policy"] == [1, 2]
    assert all(abs(row["kl_sampler"]) < 1e-4 for row in rows if row["phase"] == "policy" and "kl_sampler" in row)
    assert {row["stage"] for row in rows if row["phase"] == "eval"} >= {"final"}
    assert (run / "report.html").stat().st_size > 10_000


def test_recipes_load_and_say_where_they_run() -> None:
    assert len(RECIPES) >= 4
    for path in RECIPES:
        recipe = load_recipe(path)
        assert recipe.policy is not None, path
        assert path.read_text().startswith("# "), f"{path} begins with a comment that says what it is"
