"""Chains: each stage begins with the right weights, faults are named before the first one, and a kill loses nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_preference_rounds import BASE, ending_model, weights
from test_train import SHAPE, Notes, Vowels

from ludus import train as train_module
from ludus.agents.config import TinyModel
from ludus.agents.model import create_tiny_model, load_model
from ludus.chain import Chain, load_training, make_chain
from ludus.chain_folder import ChainFolder
from ludus.cli import main
from ludus.doctor import diagnose
from ludus.envs.source import ListSource
from ludus.envs.task import Task
from ludus.newest_model import newest_model
from ludus.recipe import Recipe, RecipeError, load_recipe, make_recipe
from ludus.report import write_report
from ludus.run_folder import RunFolder, RunFolderError
from ludus.train import train_recipe
from ludus.train_chain import ChainError, train_chain
from ludus.trainers import star
from ludus.trainers.algorithms import AlgorithmError
from ludus.viewer import report_server
from ludus.yaml_core import dump, parse

Weights = dict[str, torch.Tensor]


class Shown(Vowels):
    """The same with demonstrations."""

    def demonstrate(self, task: Any, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        return ["".join(rng.choice(list("aeiou"), 3))]


class Few(Shown):
    """Few enough tasks that a seed chooses among them."""

    def __init__(self) -> None:
        super().__init__()
        self.source = ListSource([Task(str(i), f"say {i}", None) for i in range(60)])


gymnasium.register(id="test/Shown-v0", entry_point="test_chain:Shown")
gymnasium.register(id="test/Few-v0", entry_point="test_chain:Few")
COMMON = {**BASE, "envs": [{"name": "test/Shown-v0"}], "checkpoint": {"every": 1, "keep": 2}}
STAGES: list[dict[str, Any]] = [
    {"name": "cold-start", "sft": {"steps": 2, "batch_size": 4, "demonstrations": 16}},
    {"name": "rl", "policy": {"steps": 2}},
    {
        "name": "rejection",
        "star": {
            "rounds": 1,
            "groups": 24,
            "group_size": 2,
            "steps": 2,
            "batch_size": 4,
            "rationalise": False,
            "learner": "start",
        },
    },
    {"name": "rl-again", "policy": {"steps": 2}},
    {"name": "other", "from": "rl", "preference": {"method": "orpo", "steps": 2, "groups": 4, "group_size": 2}},
]
POLICY = {"groups": 6, "group_size": 8}
KILLED = """
import os, signal, sys
import test_chain
from ludus.cli import main
from ludus.run_folder import RunFolder

left, log = int(sys.argv[1]), RunFolder.log

def dying(self, *arguments, **values):
    global left
    log(self, *arguments, **values)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

RunFolder.log = dying
main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A chain of five stages, whose start model ends its turns."""
    model, tokenizer = ending_model()
    place = tmp_path_factory.mktemp("model")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return {**COMMON, "model": {"path": str(place)}, "policy": POLICY, "chain": STAGES}


def snapshot(model: torch.nn.Module) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def whole(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[ChainFolder, list[Weights]]:
    """The chain run without interruption, and the weights with which each of its stages began."""
    begun: list[Weights] = []
    build = train_module.build_optimizer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "build_optimizer", lambda m, *rest: (begun.append(snapshot(m)), build(m, *rest))[1])
        folder = ChainFolder.create(make_chain(data, "chain.yaml"), tmp_path_factory.mktemp("whole") / "run")
        with folder:
            train_chain(folder, display=Notes())
    return folder, begun


def ended(folder: ChainFolder) -> list[Weights]:
    return [weights(folder.stage(stage)) for stage in folder.chain.stages]


def test_each_stage_begins_with_the_weights_that_it_should(data: dict[str, Any], whole: Any) -> None:
    folder, begun = whole
    cold_start, rl, rejection, rl_again, other = ended(folder)
    start = load_file(Path(data["model"]["path"]) / "model.safetensors")
    assert len(begun) == 5
    assert equal(begun[0], start)
    assert equal(begun[1], cold_start) and not equal(cold_start, start)
    assert equal(begun[2], rl) and not equal(rl, cold_start)
    assert equal(begun[3], rejection)
    assert equal(begun[4], rl)
    assert not any(equal(rl_again, begun) for begun in (rejection, rl)) and not equal(other, rl)
    # What was sampled by the policy of `rl` was learnt by the start model.
    (row,) = [row for row in RunFolder(folder.path / "stages/03-rejection").metrics() if row["phase"] == "star"]
    assert row["kept"] > 0 and "loss" in row
    assert equal(load_file(folder.path / "stages/03-rejection/checkpoints/reference_star/model.safetensors"), start)


def test_the_learner_takes_the_place_of_the_policy_that_played(data: dict[str, Any], whole: Any, monkeypatch, tmp_path):
    folder, _ = whole
    recipe = RunFolder(folder.path / "stages/03-rejection").recipe
    assert recipe.model.path == newest_model(folder.path / "stages/02-rl")
    stepped: list[Weights] = []
    step = star.sft_step
    monkeypatch.setattr(star, "sft_step", lambda model, *rest: (stepped.append(snapshot(model)), step(model, *rest))[1])
    with RunFolder.create(recipe, tmp_path / "run") as run:
        train_recipe(recipe, run, display=Notes())
    assert equal(stepped[0], load_file(Path(data["model"]["path"]) / "model.safetensors"))
    assert equal(weights(tmp_path / "run"), weights(folder.path / "stages/03-rejection"))


@pytest.mark.slow
def test_a_chain_that_is_killed_ends_with_the_weights_of_one_that_was_not(data, whole: Any, tmp_path: Path) -> None:
    (tmp_path / "chain.yaml").write_text(dump(data))
    run = tmp_path / "run"
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here}
    stood: list[set[str]] = []
    # After so many rows: in the steps of the first stage, of the second, and of the fourth.
    for left in (2, 6, 10, 0):
        what = ["--resume", str(run)] if stood else [str(tmp_path / "chain.yaml"), "--out", str(run)]
        command = [sys.executable, "-c", KILLED, str(left), "train", *what]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
        assert done.returncode == (-signal.SIGKILL if left else 0), done.stderr[-2000:]
        if stood:
            assert not any(f": {name}, from" in done.stderr for name in stood[-1])  # a finished stage is not run again
        stood.append({stage.name for stage in ChainFolder(run).chain.stages if ChainFolder(run).finished(stage)})
    assert [len(names) for names in stood] == [0, 1, 3, 5]
    folder, _ = whole
    assert all(equal(one, other) for one, other in zip(ended(ChainFolder(run)), ended(folder), strict=True))


def test_what_was_killed_just_before_a_stage_was_called_finished_is_the_same_again(whole: Any, tmp_path: Path) -> None:
    folder, _ = whole
    moved = ChainFolder.resume(shutil.copytree(folder.path, tmp_path / "moved"))
    last = moved.chain.stages[-1]
    (moved.stage(last) / ".finished").unlink()
    untouched = (moved.path / "stages/04-rl-again/metrics.jsonl").stat().st_mtime_ns
    with moved:
        train_chain(moved, display=Notes())
    assert moved.finished(last) and equal(weights(moved.stage(last)), weights(folder.stage(last)))
    assert (moved.path / "stages/04-rl-again/metrics.jsonl").stat().st_mtime_ns == untouched
    assert RunFolder(moved.stage(last)).recipe.model.path == newest_model(moved.path / "stages/02-rl")


def test_a_model_made_on_the_spot_is_the_start_of_every_stage_that_asks_for_it(tmp_path: Path) -> None:
    stages = [{**STAGES[0], "name": "one"}, {**STAGES[0], "name": "two", "from": "start", "sft": {"steps": 1}}]
    chain = make_chain({**COMMON, "model": {"tiny": SHAPE.model_dump(mode="json")}, "chain": stages}, "chain.yaml")
    with ChainFolder.create(chain, tmp_path / "run") as folder:
        train_chain(folder, display=Notes())
    model, _ = create_tiny_model(SHAPE, chain.seed)
    assert equal(load_file(folder.start / "model.safetensors"), snapshot(model))
    assert [stage.recipe.seed for stage in chain.stages] == [3, 4]
    assert {RunFolder(folder.stage(stage)).recipe.model.path for stage in chain.stages} == {str(folder.start)}


def test_a_chain_written_down_loads_as_an_equal_one(data: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "chain.yaml").write_text(dump(data))
    chain = load_training(tmp_path / "chain.yaml", ["policy.groups=4", "chain.rl.policy.steps=9", "chain.3.seed=1"])
    assert isinstance(chain, Chain)
    assert make_chain(parse(chain.text()), "again") == chain
    cold_start, rl, rejection, again, _ = [stage.recipe for stage in chain.stages]
    assert rl.policy and again.policy and (rl.policy.steps, again.policy.steps) == (9, 2)
    assert rl.policy.groups == again.policy.groups == 4 and cold_start.policy is rejection.policy is None
    assert [stage.recipe.seed for stage in chain.stages] == [3, 4, 5, 1, 7]
    assert [stage.origin for stage in chain.stages] == ["start", "cold-start", "rl", "rejection", "rl"]
    with pytest.raises(RecipeError, match="is a chain of runs and not one recipe; load it with"):
        load_recipe(tmp_path / "chain.yaml")
    (tmp_path / "one.yaml").write_text(dump({**COMMON, "model": {"tiny": {}}, **STAGES[0], "name": "one"}))
    assert isinstance(load_training(tmp_path / "one.yaml"), Recipe)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"chain": []}, r"x\.yaml: chain = \[\] must be a list of stages, each with a name\."),
        (
            {"chain": [STAGES[0]], "name": None},
            r"name = null is no name of a chain; give what the run",
        ),
        ({"chain": [3]}, r"chain\.0 = 3 must be a section with a name"),
        ({"chain": [{"sft": {"steps": 1}}]}, r"chain\.0 has no name; add one, such as name: cold-start\."),
        ({"chain": [{"name": "a b", "sft": {"steps": 1}}]}, r"stage a b: name = 'a b' is not allowed"),
        ({"chain": [{"name": "start", "sft": {"steps": 1}}]}, r"chain\.0\.name = start is what the chain begins with"),
        ({"chain": [STAGES[0], STAGES[0]]}, r"chain\.1\.name = cold-start is the name of two stages"),
        ({"chain": [{"name": "idle"}]}, r"x\.yaml: stage idle: nothing would be trained; give a section sft, star"),
        ({"chain": [{**STAGES[0], "stps": 1}]}, r"stage cold-start: stps is not a known key"),
        (
            {"chain": [{"name": "rl", "policy": {"stps": 1}}]},
            r"stage rl: policy\.stps is not a known key",
        ),
        (
            {"chain": [STAGES[0], {**STAGES[1], "from": "cold-strt"}]},
            r"stage rl: .* no stage before it; did you mean",
        ),
        ({"chain": [{**STAGES[1], "from": "rl"}]}, r"stage rl: from = 'rl' is no stage before it; choose from start\."),
        ({"chain": [{**STAGES[0], "model": {"tiny": {}}}]}, r"stage cold-start: model\.tiny is decided by the stage"),
        ({"chain": [{**STAGES[0], "threads": 2}]}, r"stage cold-start: threads is the same for all stages; write it"),
        ({"chain": [STAGES[0]], "policy": POLICY}, r"x\.yaml: policy stands beside the chain and no stage has it"),
        ({"chain": [STAGES[0]], "polcy": POLICY}, r"x\.yaml: polcy is not a known key; did you mean policy\?"),
        (
            {"chain": [{**STAGES[2], "star": {**STAGES[2]["star"], "learner": "rl"}}, STAGES[1]], "policy": POLICY},
            r"stage rejection: star\.learner = 'rl' is no stage before it; choose from start\.",
        ),
        (
            {"chain": [{**STAGES[2], "star": {**STAGES[2]["star"], "restart": False}}]},
            r"stage rejection: star\.learner is what each round returns to, and star\.restart is",
        ),
        (
            {"chain": [{"name": "rl", "policy": {"steps": 1, "algorithm": "opd", "teacher": "rl"}}]},
            r"stage rl: policy\.teacher = 'rl' is no stage before it; choose from start\.",
        ),
        ({"chain": [STAGES[1]], "policy": 5}, r"^x\.yaml: policy = 5 must be a section, or null\."),
        (
            {"chain": [{"name": "rl", "policy": {"steps": 1, "optimizer": {"lr": 0.1}}}], "policy": {"optimizer": 5}},
            r"^x\.yaml: policy\.optimizer = 5 must be a section, or null\.",
        ),
        ({"chain": [{**STAGES[0], "seed": 1}], "seed": -1}, r"^x\.yaml: seed = -1 must be a whole number"),
        ({"chain": [{**STAGES[0], "seed": 1}], "seed": True}, r"^x\.yaml: seed = true must be a whole number"),
        ({"chain": [{**STAGES[0], "eval": {"tasks": 2}}]}, r"stage cold-start: eval\.tasks decides on which tasks"),
        (
            {"chain": [{**STAGES[0], "form": "start"}]},
            r"stage cold-start: form is not a known key; did you mean from\?",
        ),
        ({"chain": [{**STAGES[0], "zzz": 1}]}, r"stage cold-start: zzz is not a known key; known here: .*, from\."),
    ],
)
def test_a_fault_of_a_stage_is_named_with_the_stage(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        make_chain({**COMMON, "model": {"tiny": {}}, **changes}, "x.yaml")


def test_a_wrong_override_of_a_stage_is_named(data: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(dump(data))
    for override, sentence in [
        ("chain.rl.policy.stps=1", r"^override chain\.rl\.policy\.stps=1: stage rl: policy\.stps is not a known key"),
        ("chain.rl.policy.steps=0", r"^override chain\.rl\.policy\.steps=0: stage rl: policy\.steps = 0 must be"),
        ("chain.rm.policy.steps=1", r"^override .*: rm is no stage of the chain; choose from cold-start, rl,"),
        ("chain.9.policy.steps=1", r"^override .*: 9 is no stage of the chain; choose from cold-start, rl, rejection"),
        (
            "chain.rl.form=start",
            r"^override chain\.rl\.form=start: stage rl: form is not a known key; did you mean from\?",
        ),
        ("chain.rl.envs.0.name=x", r"^override .*: there is no chain\.rl\.envs whose entries .* chain\.rl\.envs=\["),
        (
            "policy.steps=1",
            r"^override policy\.steps=1: .* not reach the stages rl, rl-again, which set it; write chain",
        ),
        ("policy={steps: 1}", r"^override .*: policy\.steps would not reach the stages rl, rl-again,"),
        ("sft.steps=1", r"^override sft\.steps=1: sft\.steps would not reach the stage cold-start, which sets it;"),
        ("policy=5", r"^override policy=5: policy = 5 must be a section, or null\."),
        ("seed=-1", r"^override seed=-1: seed = -1 must be a whole number of 0 or more"),
        (
            "chain.rl.polcy.steps=1",
            r"^override chain\.rl\.polcy\.steps=1: polcy is not a known key; did you mean",
        ),
    ]:
        with pytest.raises(RecipeError, match=sentence):
            load_training(tmp_path / "x.yaml", [override])


def test_what_is_common_can_be_overridden_where_the_stages_that_say_it_are_too(data, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(dump(data))
    overrides = ["policy.steps=1", "chain.rl.policy.steps=5", "chain.rl-again.policy={steps: 6}", "name=other"]
    chain = load_training(tmp_path / "x.yaml", overrides)
    assert isinstance(chain, Chain) and chain.name == "other"
    assert [stage.recipe.policy.steps for stage in chain.stages if stage.recipe.policy] == [5, 6]


def test_options_of_the_common_algorithm_are_not_those_of_another() -> None:
    stages = [
        {"name": "rl", "policy": {"options": {"clip_high": 0.3}}},
        {"name": "same", "policy": {"algorithm": "grpo", "options": {"clip_high": 0.4}}},
        {"name": "last", "policy": {"algorithm": "opd", "teacher": "rl"}},
    ]
    common = {**POLICY, "steps": 1, "options": {"kl_coef": 0.0}}
    chain = make_chain({**COMMON, "model": {"tiny": {}}, "policy": common, "chain": stages}, "x.yaml")
    found = [stage.recipe.policy.options for stage in chain.stages if stage.recipe.policy]
    assert found == [{"kl_coef": 0.0, "clip_high": 0.3}, {"kl_coef": 0.0, "clip_high": 0.4}, {}]
    assert all(stage.recipe.policy and stage.recipe.policy.groups == POLICY["groups"] for stage in chain.stages)


def test_all_stages_are_judged_on_the_same_tasks(data: dict[str, Any], whole: Any, tmp_path: Path) -> None:
    cold_start, rl, rejection, _, other = [whole[0].scores(stage)[0] for stage in whole[0].chain.stages]
    assert cold_start.after.accuracy == rl.before.accuracy
    assert rl.after.accuracy == rejection.before.accuracy == other.before.accuracy
    stages = [STAGES[0], {**STAGES[0], "name": "again"}]
    few = {key: value for key, value in data.items() if key != "policy"} | {"envs": [{"name": "test/Few-v0"}]}
    with ChainFolder.create(make_chain({**few, "chain": stages}, "x.yaml"), tmp_path / "run") as folder:
        train_chain(folder, display=Notes())

    def judged(stage: str) -> list[str]:
        rows = RunFolder(folder.path / "stages" / stage).read_episodes("eval-after_sft")
        return [row["task_id"] for row in rows]

    assert judged("01-cold-start") == judged("02-again") and len(judged("02-again")) == COMMON["eval"]["tasks"]


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ({"name": "late", "envs": [{"name": "test/Gone-v0"}], "sft": {"steps": 1}}, "^stage late: .*test/Gone-v0"),
        ({"name": "late", "policy": {"steps": 1, "algorithm": "grop"}}, "^stage late: .*'grop'"),
        (
            {"name": "late", "preference": {"steps": 1, "path": "gone.jsonl"}},
            "^stage late: preference.path = gone",
        ),
        ({"name": "late", "star": {**STAGES[2]["star"], "learner": "strat"}}, r"^stage late: .*; did you mean start\?"),
        (
            {"name": "late", "star": {**STAGES[2]["star"], "learner": "/gone"}},
            "^stage late: star.learner: /gone is not",
        ),
        (
            {"name": "late", "policy": {"steps": 1, "algorithm": "opd", "teacher": "/gone"}},
            "^stage late: policy.teacher: /gone is not",
        ),
        (
            {"name": "late", "policy": {"steps": 1, "optimizer": {"kind": "paged_adamw_8bit"}}},
            "^stage late: optimizer.kind = paged_adamw_8bit",
        ),
    ],
)
def test_what_is_wrong_with_a_late_stage_is_said_before_the_first_begins(
    data, stage: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    chain = make_chain({**data, "device": "cpu", "chain": [*STAGES, stage]}, "x.yaml")
    with ChainFolder.create(chain, tmp_path / "run") as folder:
        with pytest.raises(ChainError, match=sentence):
            train_chain(folder, display=Notes())
        assert not list((folder.path / "stages").iterdir())
        folder.remove_if_unused()
    assert not folder.path.exists()


@pytest.mark.parametrize("missing", [False, True])
def test_wrong_adapters_of_a_late_stage_are_named_before_the_first(data, missing: bool, monkeypatch, tmp_path) -> None:
    pytest.importorskip("peft", reason="peft is in the extra 'lora'")
    if missing:
        monkeypatch.setitem(sys.modules, "peft", None)
    late = {"name": "late", "model": {"lora": {"targets": ["foo"]}}, "sft": {"steps": 1}}
    chain = make_chain({**data, "chain": [*STAGES, late]}, "x.yaml")
    sentence = r"install 'ludus\[lora\]'" if missing else "targets has 'foo'"
    with ChainFolder.create(chain, tmp_path / "run") as folder:
        with pytest.raises(ChainError, match=f"^stage late: .*{sentence}"):
            train_chain(folder, display=Notes())
        assert not list((folder.path / "stages").iterdir())


def test_a_stage_may_teach_a_later_one_and_what_it_teaches_can_be_moved(data, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is in the extra 'lora'")
    stages = [
        {"name": "first", "sft": {"steps": 1, "batch_size": 2, "demonstrations": 4}},
        {"name": "second", "policy": {"steps": 1, "algorithm": "opd", "teacher": "first"}},
    ]
    model = {**data["model"], "lora": {"rank": 2}}
    chain = make_chain({**data, "model": model, "policy": {"groups": 2, "group_size": 2}, "chain": stages}, "x.yaml")
    with ChainFolder.create(chain, tmp_path / "run") as folder:
        train_chain(folder, display=Notes())
        first, second = (folder.stage(stage) for stage in chain.stages)
        assert RunFolder(second).recipe.policy.teacher == newest_model(first)
        expected, _ = load_model(newest_model(second))
    run = (tmp_path / "run").rename(tmp_path / "moved")
    moved, _ = load_model(newest_model(run))
    assert equal(snapshot(moved), snapshot(expected))
    (run / "stages/02-second/.finished").unlink()
    with ChainFolder.resume(run) as again:
        train_chain(again, display=Notes())
    assert (run / "stages/02-second/checkpoints/teacher.txt").read_text().startswith("../../01-first/")


def test_a_stage_s_recipe_is_written_from_the_chain_s_alone(whole: Any, tmp_path: Path) -> None:
    run = shutil.copytree(whole[0].path, tmp_path / "run")
    stage = run / "stages/04-rl-again"
    (stage / ".finished").unlink()
    text = (stage / "recipe.yaml").read_text()
    (stage / "recipe.yaml").write_text(text.replace("keep: 2", "keep: 7"))
    with (
        ChainFolder.resume(run) as folder,
        pytest.raises(ChainError, match=r"^stage rl-again: .*recipe\.yaml was changed, .*chain\.yaml; change that"),
    ):
        train_chain(folder, display=Notes())
    (stage / "recipe.yaml").write_text(text)
    (run / "chain.yaml").write_text((run / "chain.yaml").read_text().replace("keep: 2", "keep: 7"))
    with ChainFolder.resume(run) as folder:
        train_chain(folder, display=Notes())
    assert RunFolder(stage).recipe.checkpoint.keep == 7


def test_the_checkpoints_of_a_stage_without_a_recipe_are_not_thrown_away(whole: Any, tmp_path: Path) -> None:
    run = shutil.copytree(whole[0].path, tmp_path / "run")
    stage = run / "stages/05-other"
    for name in (".finished", "recipe.yaml"):
        (stage / name).unlink()
    with (
        ChainFolder.resume(run) as folder,
        pytest.raises(ChainError, match=r"^stage other: .*recipe\.yaml is missing, and there are checkpoints"),
    ):
        train_chain(folder, display=Notes())
    assert list((stage / "checkpoints").glob("preference-*"))


def test_the_folder_of_a_chain_is_said_to_be_one_and_its_stages_are_runs(whole: Any, capsys) -> None:
    folder, _ = whole
    for read in (RunFolder, RunFolder.resume, write_report):
        with pytest.raises(
            RunFolderError, match=r"is the folder of a chain of runs, whose report\.html .*01-cold-start"
        ):
            read(folder.path)
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", str(folder.path)])
    assert stopped.value.code == 2
    assert "is the folder of a chain of runs" in capsys.readouterr().err
    stage = folder.path / "stages/02-rl"
    assert write_report(stage).is_file() and isinstance(diagnose(RunFolder(stage).metrics()), list)
    assert RunFolder(stage).name_and_group == ("run/02-rl", "run")
    assert newest_model(folder.path) == newest_model(folder.path / "stages/05-other")


def test_the_report_of_a_chain_leads_to_those_of_its_stages(whole: Any, capsys) -> None:
    folder, _ = whole
    with pytest.raises(SystemExit) as left:
        main(["view", str(folder.path), "--no-serve"])
    assert left.value.code == 0 and capsys.readouterr().out.strip() == str(folder.path / "report.html")
    server = report_server(folder.path, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:

        def page(path: str) -> str:
            with urlopen(f"http://127.0.0.1:{server.server_address[1]}/{path}", timeout=30) as answer:
                return str(answer.read().decode())

        links = re.findall(r'href="(stages/[^"]+)"', page(""))
        assert len(links) == len(folder.chain.stages)
        for link in links:
            assert "Ludus report" in page(link)
        with pytest.raises(HTTPError, match="404"):
            page("stages/../chain.yaml")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_two_writers_cannot_share_a_chain_and_none_is_written_over(data: dict[str, Any], tmp_path: Path) -> None:
    chain = make_chain(data, "x.yaml")
    with ChainFolder.create(chain, tmp_path / "run"):
        with pytest.raises(RunFolderError, match="belongs to a run that is still going"):
            ChainFolder.resume(tmp_path / "run")
        with pytest.raises(RunFolderError, match="continue that run with --resume"):
            ChainFolder.create(chain, tmp_path / "run")


def test_the_report_lists_the_stages_with_what_they_reached(whole: Any) -> None:
    folder, _ = whole
    page = (folder.path / "report.html").read_text()
    for stage in folder.chain.stages:
        assert f'href="stages/{stage.folder}/report.html"' in page
        (scores,) = folder.scores(stage)
        assert scores.before and scores.after and f"{100 * scores.after.accuracy:.1f}%" in page
    assert page.count("finished") >= 5 and "policy (grpo) 2 steps" in page


@pytest.mark.parametrize(
    ("change", "sentence"), [("tokens", "learner .* has another vocabulary"), ("shape", "learner .* has another shape")]
)
def test_a_learner_that_cannot_take_the_place_of_the_policy_is_refused(
    data, change: str, sentence: str, tmp_path: Path
) -> None:
    model, tokenizer = create_tiny_model(TinyModel(**{**SHAPE.model_dump(), "layers": 1}), 0)
    if change == "tokens":
        tokenizer.add_tokens(["<|another|>"])
    model.save_pretrained(tmp_path / "learner")
    tokenizer.save_pretrained(tmp_path / "learner")
    phase = {**STAGES[2]["star"], "learner": str(tmp_path / "learner")}
    recipe = make_recipe({**COMMON, "model": data["model"], "star": phase}, "x.yaml")
    with RunFolder.create(recipe, tmp_path / "run") as run, pytest.raises(AlgorithmError, match=sentence):
        train_recipe(recipe, run, display=Notes())
