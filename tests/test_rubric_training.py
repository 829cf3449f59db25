"""Training and evaluating with rubrics: parts in the metrics, prices that follow the violation, and resume."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bigram import writing_model
from brief_letters import NAME, BriefLetters, register
from gymnasium.utils.env_checker import check_env
from test_resume import finish, kill_when, rows, weights
from test_train import Run, ended

from ludus.agents.engine import Sampling
from ludus.agents.evaluate import evaluate
from ludus.agents.model import character_tokenizer
from ludus.agents.rollout import Arena, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.cli import summary
from ludus.evaluation_folder import write_evaluation
from ludus.run_folder import RunFolder
from ludus.trainers.checkpoint import list_checkpoints
from ludus.trainers.constraints import constraints_of
from ludus.verifiers.verdict import Outcome

RATE = 0.02


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Six steps of a small model whose answers are longer than the constraint allows."""
    with ended(Run(("letters", BriefLetters, 1.0), groups=6, group_size=6, steps=6)) as made:
        made.train()
        yield made


def test_the_price_rises_while_the_bound_is_violated(run: Run) -> None:
    logged = run.notes.rows
    prices = [row["constraint/length/multiplier"] for row in logged]
    assert prices[0] == 0.0
    for row, price, following in zip(logged, prices, [*prices[1:], run.trainer.multipliers["length"]], strict=True):
        violation = row["constraint/length/violation"]
        assert violation == pytest.approx(row["constraint/length/value"] - 3.0)
        assert following == min(max(price + RATE * violation, 0.0), 1.0)
    assert prices[1] > 0 and prices[-1] > prices[1], "the bound was violated"


def test_all_episodes_of_a_step_are_charged_the_price_that_its_metrics_show(run: Run) -> None:
    for row, (episodes, _) in zip(run.notes.rows, run.kept, strict=True):
        price = row["constraint/length/multiplier"]
        charges = []
        for episode in episodes:
            found = constraints_of(episode)
            assert bool(found) == ("length/charge" in episode.rewards) == episode.terminated
            charges.append(sum(-price * each.excess for each in found.values()))
            earned = episode.verdict.reward if episode.verdict else 0.0
            assert episode.reward == pytest.approx(earned + charges[-1])
            paid = [step.reward for trajectory in episode.trajectories for step in trajectory.steps]
            assert sum(paid) == episode.reward
        assert row["reward_part/length/charge"] == pytest.approx(sum(charges) / len(charges))


def test_the_price_is_in_the_advantages(run: Run) -> None:
    """In the last step two episodes of a group that earned the same differ by what they were charged."""
    episodes, advantages = run.kept[-1]
    signs = set()
    for one, a in zip(episodes, advantages, strict=True):
        for other, b in zip(episodes, advantages, strict=True):
            same = one.group == other.group and one.verdict and other.verdict
            if same and one.verdict.reward == other.verdict.reward and one.reward > other.reward:  # type: ignore[union-attr]
                signs.add(a[0].max() + a[0].min() > b[0].max() + b[0].min())
    assert signs == {True}


def test_metrics_show_each_part_its_mean_and_what_was_not_judged(run: Run) -> None:
    for row, (episodes, _) in zip(run.notes.rows, run.kept, strict=True):
        early = [e.verdict.parts["early"] for e in episodes if e.verdict]
        values = [part.value for part in early if part.value is not None]
        assert row["verifier/early"] == pytest.approx(sum(values) / len(values))
        assert row["verifier/early/undecided"] == len(early) - len(values)
        assert (row["verifier/early/error"], row["verifier/early/not_asked"]) == (0, 0)
        assert row["verifier/length/measured"] == pytest.approx(row["constraint/length/value"])
        assert 0 <= row["verifier/length"] <= 1
        assert not any(key.startswith(("reward_part/early", "reward_part/length/measured")) for key in row)


def test_a_broken_scale_takes_the_episode_out_of_loss_and_price_and_is_counted() -> None:
    make = lambda: BriefLetters(breaks="abcdefghijklm")  # noqa: E731
    with ended(Run(("letters", make, 1.0), groups=8, group_size=6, steps=2)) as run:
        logged = run.train()
        kept = [episode for episodes, _ in run.kept for episode in episodes]
    assert sum(row["errors"] for row in logged) > 0
    for row in logged:
        assert row["errors"] == row["verifier/length/error"] == row["verifier/length/measured/error"]
        assert row["verifier/early/error"] == 0
    assert all(episode.reward is not None for episode in kept)
    assert not any(e.verdict and e.verdict.outcome is Outcome.ERROR for e in kept)


def test_several_environments_have_prices_of_their_own() -> None:
    envs = (("tight", lambda: BriefLetters(at_most=1.0), 1.0), ("loose", lambda: BriefLetters(at_most=100.0), 1.0))
    with ended(Run(*envs, groups=12, steps=2)) as run:
        run.train()
        assert run.trainer.multipliers["tight/length"] > 0
        assert run.trainer.multipliers["loose/length"] == 0
        merged = {key for row in run.notes.rows for key in row}
    assert {"verifier/tight/early", "verifier/loose/length", "constraint/tight/length/value"} <= merged
    assert "verifier/early" not in merged


# Kill and resume

RECIPE = f"""
name: brief
seed: 5
threads: 1
model:
  tiny: {{hidden_size: 32, layers: 2, heads: 2, kv_heads: 1, intermediate_size: 64, initializer_range: 0.5}}
envs:
  - {{name: {NAME}, options: {{at_most: 2.0, learning_rate: 0.01}}}}
engine: {{slots: 16, max_length: 160}}
sampling: {{max_tokens: 60}}
policy: {{algorithm: grpo, steps: 6, groups: 4, group_size: 4, optimizer: {{lr: 0.003}}}}
eval: {{every: 3, tasks: 4}}
checkpoint: {{every: 2, keep: 2}}
trajectories: {{every: 2, episodes: 4}}
"""


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__).with_name("brief_letters.py")), "train", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def prices(run: Path) -> list[float | None]:
    return [row.get("constraint/length/multiplier") for row in rows(run) if row["phase"] == "policy"]


@pytest.mark.slow
def test_a_killed_run_goes_on_with_its_prices_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    recipe = tmp_path / "brief.yaml"
    recipe.write_text(RECIPE)
    whole, run, rng = tmp_path / "whole", tmp_path / "run", random.Random(4)
    finish(start([str(recipe), "--out", str(whole)]))
    policy_lines = [i for i, row in enumerate(rows(whole), 1) if row["phase"] == "policy"]
    killed = 0
    for number, line in enumerate(policy_lines[2:5:2]):  # after a checkpoint, so that there is a price to go on with
        arguments = ["--resume", str(run)] if number else [str(recipe), "--out", str(run)]
        killed += kill_when(start(arguments), run / "metrics.jsonl", line, rng.random() * 0.05)
    assert killed >= 1
    at_kill = list_checkpoints(run / "checkpoints")[-1].state()["multipliers"]
    assert at_kill["length"] > 0
    finish(start(["--resume", str(run)]))
    assert prices(run) == prices(whole)
    assert len(set(prices(whole))) > 2
    expected, found = weights(whole), weights(run)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    last = [list_checkpoints(path / "checkpoints")[-1].state()["multipliers"] for path in (whole, run)]
    assert last[0] == last[1]
    (episode, *_) = RunFolder(run).read_episodes("policy-000002")
    assert episode["verdict"] is None or set(episode["verdict"]["parts"]) == {"early", "length"}


# Evaluation


TOKENIZER = character_tokenizer()


def evaluated(first: str, then: str, **options: Any) -> Any:
    """An evaluation of a model that answers with two letters."""
    start_id, one, two = (TOKENIZER.convert_tokens_to_ids(t) for t in ("<|assistant|>", first, then))
    model = writing_model(TOKENIZER, {start_id: one, one: two})
    arena = Arena.build("letters", lambda: BriefLetters(**options), TOKENIZER)
    with Rollout(TorchEngine(model, TOKENIZER, max_length=60), {"letters": arena}, concurrency=4) as rollout:
        return evaluate(rollout, "letters", tasks=5, sampling=Sampling(temperature=0.0, max_tokens=9))


def test_an_evaluation_shows_the_raw_measure_and_no_price() -> None:
    result = evaluated("a", "b", at_most=1.0)
    assert (result.accuracy, result.mean_reward) == (1.0, 1.0)
    assert result.parts["length/measured"].mean == 2.0 and result.parts["length/measured"].low is None
    assert (result.parts["length"].mean, result.parts["length"].low) == (0.0, 0.0)
    assert result.parts["early"].low == pytest.approx(0.5655, abs=1e-4)  # Wilson, 5 of 5: 5 / (5 + z^2)
    lines = summary(result).splitlines()
    assert "part early            1.0000, 95% interval 0.5655 to 1.0000" in lines
    assert "part length/measured  2.0000 on average" in lines


def test_an_evaluation_says_how_often_a_part_gave_no_value() -> None:
    result = evaluated("1", "2")
    assert (result.parts["early"].undecided, result.parts["early"].mean) == (5, None)
    assert "part early            never judged; 5 undecided" in summary(result).splitlines()


def test_parts_are_in_the_file_of_an_evaluation(tmp_path: Path) -> None:
    register()
    TOKENIZER.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen2"}')
    result = evaluated("a", "b")
    write_evaluation(tmp_path / "out", {"env": NAME, "model": str(tmp_path / "model")}, result)
    (row,) = rows(tmp_path / "out")
    assert row["parts"]["early"] == {
        "mean": 1.0, "low": pytest.approx(0.5655, abs=1e-4), "high": 1.0, "judged": 5, "undecided": 0, "errors": 0,
        "not_asked": 0,
    }  # fmt: skip
    assert '"length/measured"' in (tmp_path / "out" / "result.json").read_text()


# The documentation


def test_the_example_in_the_documentation_runs_and_prints_what_it_says(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (repository / "docs" / "rubrics.md").read_text(encoding="utf-8")
    example, shaped = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (printed,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)  # noqa: S102
    assert capsys.readouterr().out == printed
    exec(shaped, names)  # noqa: S102
    env = names["Shaped"]()
    env.reset()
    assert env.step("18")[4]["rewards"]["shaping"] == 0.0
    check_env(names["PoliteSums"]())
