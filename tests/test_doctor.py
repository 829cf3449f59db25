"""The doctor: silent on healthy runs, right about sick ones, and never stopped by odd numbers."""

from __future__ import annotations

import inspect
import json
import math
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import small_recipe

from ludus.agents.config import Section
from ludus.agents.statistics import wilson_interval
from ludus.cli import main
from ludus.doctor import CHECKS, diagnose
from ludus.finding import Finding, Severity
from ludus.recipe import Recipe, make_recipe
from ludus.report import write_report
from ludus.run_folder import RunFolder
from ludus.train import train_recipe
from ludus.trainers.algorithms import ALGORITHMS
from ludus.trainers.checkpoint import list_checkpoints
from ludus.trend import Trend, alternation, noise, slow_turns, turns, window

ENV = "ludus/WordMath-v0"
Rows = list[dict[str, Any]]


def evaluation(step: int, accuracy: float, tasks: int = 200) -> dict[str, Any]:
    low, high = wilson_interval(round(accuracy * tasks), tasks)
    scores = {"accuracy": round(accuracy * tasks) / tasks, "low": low, "high": high, "tasks": tasks}
    return {"phase": "eval", "step": step, "seconds": 1.0, "env": ENV, **scores}


def healthy(steps: int = 200, seed: int = 0, spread: float = 0.06, start: float = 0.4, top: float = 0.85) -> Rows:
    """A run that learns: every curve moves as it should, each with noise of its own."""
    rng = random.Random(seed)
    rows: Rows = [evaluation(0, start)]
    for step in range(1, steps + 1):
        level = top - (top - start) * math.exp(-step / 40)
        right = min(max(rng.gauss(level, spread), 0.0), 1.0)
        drift = abs(rng.gauss(0, 0.05))
        row = {
            "reward": right, "outcome/correct": right, "outcome/wrong": 1 - right,
            "episodes": 64.0, "errors": 0.0, "undecided": 0.0,
            "entropy": 0.1 + 0.4 * math.exp(-step / 80) + rng.gauss(0, 0.03),
            "kl_reference": 0.1 * (1 - math.exp(-step / 60)) + rng.gauss(0, 0.01), "kl_reference/k3": 0.1,
            "kl_sampler": rng.gauss(0, 1e-5), "kl_sampler/k3": abs(rng.gauss(0, 1e-4)),
            "clip_fraction": abs(rng.gauss(0, 0.05)),
            "ratio": 1.0, "ratio/p1": 1 - drift, "ratio/p50": 1.0, "ratio/p99": 1 + drift,
            "length": 100 + 30 * level + rng.gauss(0, 8), "truncated/length": abs(rng.gauss(0, 0.03)),
            "truncated": abs(rng.gauss(0, 0.03)), "groups_without_spread": min(0.3 + 0.4 * level, 0.7),
            "grad_norm": math.exp(rng.gauss(-1, 0.5)), "loss": rng.gauss(0, 0.01),
        }  # fmt: skip
        rows.append({"phase": "policy", "step": step, "seconds": 1.0, **row})
        if step % 50 == 0:
            rows.append(evaluation(step, level + rng.gauss(0, 0.03)))
    return rows


def bent(**curves: Callable[[int], float]) -> Rows:
    """A healthy run of 200 steps in which some curves are another function of the step."""
    rows = healthy()
    for row in rows:
        if row["phase"] == "policy":
            row |= {name.replace("__", "/"): curve(row["step"]) for name, curve in curves.items()}
    return rows


def hacked() -> Rows:
    """The reward rises to the end, the held-out accuracy rises and then falls."""
    accuracies = {0: 0.4, 50: 0.6, 100: 0.7, 150: 0.5, 200: 0.35}
    return [evaluation(row["step"], accuracies[row["step"]]) if row["phase"] == "eval" else row for row in healthy()]


NOISE = random.Random(5)
SICK: dict[str, Rows] = {
    "non_finite": bent(grad_norm=lambda step: math.nan if step == 120 else 0.4),
    "reward_constant": bent(reward=lambda step: 0.0),
    "reward_flat": bent(reward=lambda step: NOISE.gauss(0.3, 0.05)),
    "reward_oscillates": bent(reward=lambda step: 0.5 + 0.4 * math.sin(step / 8) + NOISE.gauss(0, 0.05)),
    "reward_falls": bent(reward=lambda step: NOISE.gauss(0.8 if step < 120 else 0.3, 0.05)),
    "held_out_falls": hacked(),
    "kl_reference_grows": bent(kl_reference=lambda step: 1e-4 * step**2 + NOISE.gauss(0, 0.05)),
    "kl_sampler_large": bent(kl_sampler__k3=lambda step: abs(NOISE.gauss(0.03, 0.01))),
    "entropy_collapses": bent(entropy=lambda step: 0.6 * math.exp(-step / 20) + 0.001),
    "entropy_explodes": bent(entropy=lambda step: 0.4 + step / 60 + NOISE.gauss(0, 0.05)),
    "length_explodes": bent(length=lambda step: 100 + 2 * step, reward=lambda step: NOISE.gauss(0.5, 0.05)),
    "answers_truncated": bent(truncated__length=lambda step: 0.002 * step),
    "groups_without_spread": bent(groups_without_spread=lambda step: 0.95),
    "many_errors": bent(errors=lambda step: 8.0),
    "many_undecided": bent(undecided=lambda step: 10.0),
    "much_clipped": bent(clip_fraction=lambda step: 0.5),
    "ratio_extreme": bent(ratio__p99=lambda step: 6.0),
    "gradient_spikes": bent(grad_norm=lambda step: 30.0 if step % 15 == 0 else 0.4),
}
BESIDES = {"length_explodes": {"reward_flat"}}
"""What else is wrong with a sick run, and rightly found."""


def test_samples_of_earlier_policies_are_no_fault_of_the_engine() -> None:
    far = {"kl_sampler__k3": lambda step: 0.03}
    (one,), (other,) = diagnose(bent(**far)), diagnose(bent(**far, staleness=lambda step: 1.5))
    assert one.name == other.name == "kl_sampler_large"
    assert "same precision" in str(one) and "policy.max_staleness" in str(other)


def finding_of(name: str) -> Finding:
    return next(finding for finding in diagnose(SICK[name]) if finding.name == name)


def test_every_check_has_a_sick_run() -> None:
    assert {check.__name__ for check in CHECKS} == set(SICK)


@pytest.mark.parametrize("name", SICK)
def test_a_sick_run_has_its_finding_and_no_other(name: str) -> None:
    assert {finding.name for finding in diagnose(SICK[name])} - BESIDES.get(name, set()) == {name}


@pytest.mark.parametrize("seed", range(10))
def test_a_healthy_run_has_none_at_any_of_its_evaluations(seed: int) -> None:
    rows = healthy(300, seed)
    ends = [i + 1 for i, row in enumerate(rows) if row["phase"] == "eval"]
    assert [diagnose(rows[:end]) for end in ends] == [[]] * len(ends)


@settings(max_examples=50)
@given(
    steps=st.integers(0, 250),
    seed=st.integers(0, 10**6),
    spread=st.floats(0.01, 0.1),
    start=st.floats(0.05, 0.45),
    gain=st.floats(0.35, 0.5),
)
def test_no_noise_makes_a_healthy_run_sick(steps: int, seed: int, spread: float, start: float, gain: float) -> None:
    assert diagnose(healthy(steps, seed, spread, start, start + gain)) == []


def test_success_is_no_sickness() -> None:
    """With all answers right, groups are equal, the entropy is low and the reward stays where it is."""
    rows = bent(
        reward=lambda step: NOISE.gauss(0.97, 0.01),
        outcome__correct=lambda step: 0.97,
        groups_without_spread=lambda step: 0.95,
        entropy=lambda step: 0.5 * math.exp(-step / 20),
    )
    assert diagnose(rows) == []


def test_a_single_dip_a_single_spike_and_a_recovery_are_no_sickness() -> None:
    rows = bent(
        reward=lambda step: NOISE.gauss(0.3 if 60 < step < 80 else 0.5 + 0.002 * step, 0.03),
        grad_norm=lambda step: 50.0 if step == 150 else 0.4,
        truncated__length=lambda step: 0.9 * math.exp(-step / 100),
    )
    assert diagnose(rows) == []


def test_growth_that_pays_is_none() -> None:
    rows = bent(length=lambda step: 100 + 2 * step)
    assert diagnose(rows) == []


def test_swings_from_step_to_step_are_found_too() -> None:
    (finding,) = diagnose(bent(reward=lambda step: NOISE.gauss(0.8 if step % 2 else 0.2, 0.03)))
    assert finding.name == "reward_oscillates" and "from step to step" in finding.wrong


def test_older_runs_without_the_newer_curves_are_judged_by_what_they_have() -> None:
    old = bent(kl_sampler=lambda step: 0.05, truncated=lambda step: 0.5)
    for row in old:
        for name in [name for name in row if "/" in name]:
            del row[name]
    assert {finding.name for finding in diagnose(old)} == {"kl_sampler_large", "answers_truncated"}


def test_a_finding_has_its_figures_its_step_and_what_to_change() -> None:
    (finding,) = diagnose(SICK["held_out_falls"])
    assert (finding.step, finding.severity) == (200, Severity.SERIOUS)
    assert f"in {ENV} fell from 0.700 at step 100 to 0.350, while the reward went from 0.8" in finding.wrong
    assert "the checkpoint of step 100" in finding.change
    (finding,) = diagnose(SICK["many_errors"])
    assert finding.wrong.startswith("12% of the episodes were lost to errors")
    (finding,) = diagnose(SICK["non_finite"])
    assert finding.wrong == "grad_norm was not a finite number at policy step 120."


def test_a_reward_that_has_died_calls_for_smaller_steps() -> None:
    (never,) = diagnose(SICK["reward_constant"])
    (dead,) = [f for f in diagnose(bent(reward=lambda step: max(0.5 - step / 20, 0))) if f.name == "reward_constant"]
    assert "policy.optimizer.lr" not in never.change
    assert "It was 0.45 before: take an earlier checkpoint and a lower policy.optimizer.lr." in dead.change


def test_what_goes_wrong_within_the_first_steps_is_found_too() -> None:
    rows = bent(entropy=lambda step: 0.8 if step < 4 else 4.0, truncated__length=lambda step: 0.01 if step < 4 else 0.9)
    assert [finding.name for finding in diagnose(rows)] == ["entropy_explodes", "answers_truncated"]
    assert diagnose(rows)[0].wrong == "The entropy rose from 0.8 to 4 nats a token: the policy speaks at random."


def test_the_serious_stands_first() -> None:
    rows = bent(undecided=lambda step: 20.0, errors=lambda step: 20.0)
    assert [finding.severity.value for finding in diagnose(rows)] == ["serious", "warning"]


def keys(text: str) -> list[str]:
    return [key.rstrip(".") for key in re.findall(r"\b(?:policy|sampling|engine|eval|envs|sft)\.[a-z_.]+", text)]


@pytest.mark.parametrize("name", SICK)
def test_what_to_change_names_keys_that_a_recipe_has(name: str) -> None:
    found = [key for finding in diagnose(SICK[name]) for key in keys(finding.change)]
    known = {option for build in ALGORITHMS.values() for option in inspect.signature(build).parameters}
    for key in found:
        first, *rest = key.split(".")
        if key.startswith("policy.options."):
            assert rest[1] in known, key
            continue
        section: Any = Recipe.model_fields[first].annotation
        for part in rest:
            options = [section, *getattr(section, "__args__", ())]
            section = next(one for one in options if isinstance(one, type) and issubclass(one, Section))
            assert part in section.model_fields, key
            section = section.model_fields[part].annotation


NUMBERS = st.one_of(st.none(), st.floats(), st.integers(), st.just(10**400), st.booleans(), st.text(max_size=3))
NAMES = sorted(healthy(1)[1].keys() - {"phase", "step", "seconds"})


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(NAMES), NUMBERS), max_size=60))
def test_whatever_stands_in_a_row_the_others_are_judged(seed: int, changes: list[tuple[int, str, Any]]) -> None:
    rows = healthy(60, seed)
    for place, name, value in changes:
        rows[place % len(rows)][name] = value
    found = diagnose(rows)
    assert all(finding.wrong and finding.change for finding in found)
    assert len({finding.name for finding in found}) == len(found)


def test_a_step_that_is_not_a_number_hides_nothing_else() -> None:
    rows = SICK["many_errors"]
    sick = [{**row, "entropy": math.nan, "reward": None} if row["step"] == 199 else row for row in rows]
    assert {finding.name for finding in diagnose(sick)} == {"non_finite", "many_errors"}


def test_missing_curves_and_short_runs_are_no_findings() -> None:
    assert diagnose([]) == []
    assert diagnose([{"phase": "policy", "step": 1, "seconds": 1.0}]) == []
    assert diagnose(SICK["reward_oscillates"][:10]) == []


# Trends


def test_windows_noise_and_turns_by_hand() -> None:
    assert [window(count) for count in (1, 20, 41, 400)] == [1, 5, 10, 20]
    assert noise([0.0, 1.0, 0.0]) == pytest.approx(math.sqrt(0.5))
    assert noise([3.0]) == 0.0
    assert turns([0, 1, 0, 1, 0], 1) == 3
    assert turns([0, 1, 0.5, 1, 0.5], 0.6) == 0
    assert turns([0, 5, 5, 9, 2, 3, 8], 4) == 2
    assert turns([], 1) == 0


def test_a_trend_by_hand() -> None:
    assert Trend.of([(step, 0.0) for step in range(19)]) is None
    points = [(step, float(step >= 10)) for step in range(1, 21)]
    trend = Trend.of(points)
    assert trend is not None
    assert (trend.start, trend.first, trend.last, trend.best, trend.last_step, trend.steps) == (
        0.0,
        0.0,
        1.0,
        1.0,
        20,
        20,
    )
    assert trend.error == pytest.approx(math.sqrt(1 / 19 / 2) * math.sqrt(2 / 5))


def test_slow_turns_are_beyond_the_noise_of_their_blocks() -> None:
    slow = [math.sin(step / 10) for step in range(200)]
    assert slow_turns(slow, 0.5) == 6
    rng = random.Random(1)
    assert slow_turns([rng.gauss(0, 1) for _ in range(200)], 0.0) == 0


def test_alternation_is_that_of_the_shortest_lags() -> None:
    assert alternation([float(step % 2) for step in range(40)]) == pytest.approx(-1, abs=0.1)
    assert alternation([float(step % 4 < 2) for step in range(40)]) < -0.8
    assert alternation([0.3] * 40) == 0.0
    rng = random.Random(2)
    assert all(alternation([rng.gauss(0, 1) for _ in range(40)]) > -0.6 for _ in range(300))


# In a run, as a command, in the report


def ludus(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return int(exit_.value.code or 0)


def write_run(path: Path, rows: Rows) -> Path:
    with RunFolder.create(small_recipe(), path) as run:
        for row in rows:
            run.log(**{key: value for key, value in row.items() if key != "seconds"})
    return path


def test_the_command_says_what_is_wrong_and_exits_with_1(tmp_path: Path, capsys) -> None:
    run = write_run(tmp_path / "run", SICK["non_finite"])
    assert ludus("doctor", str(run)) == 1
    assert capsys.readouterr().out.splitlines() == [
        "serious  non_finite, step 120",
        "    grad_norm was not a finite number at policy step 120.",
        "    Lower policy.optimizer.lr and policy.optimizer.max_grad_norm; if it is the reward, no episode was judged: "
        "see to the errors of the verifier.",
        f"{run}: 1 finding in 200 policy steps",
    ]


def test_the_command_is_content_with_a_healthy_run(tmp_path: Path, capsys) -> None:
    run = write_run(tmp_path / "run", healthy(40))
    assert ludus("doctor", str(run)) == 0
    assert capsys.readouterr().out == f"{run}: nothing wrong in 40 policy steps\n"


def test_the_command_refuses_what_is_no_run_in_one_sentence(tmp_path: Path, capsys) -> None:
    run = write_run(tmp_path / "run", [])
    (tmp_path / "empty").mkdir()
    broken = write_run(tmp_path / "broken", healthy(2))
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "policy"\n')
    for place, sentence in {
        run: "holds no metrics yet; let the run take a step first.",
        tmp_path / "empty": "is not the folder of a run: it has no recipe.yaml; give one that `ludus train` made.",
        tmp_path / "gone": "does not exist",
        broken: "metrics.jsonl, line 4 is not JSON; restore or remove that line.",
    }.items():
        assert ludus("doctor", str(place)) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.startswith("error: ") and said.count("\n") == 1


def test_the_report_shows_findings_and_nothing_where_there_are_none(tmp_path: Path) -> None:
    sick = write_report(write_run(tmp_path / "sick", SICK["many_errors"])).read_text()
    assert "What the doctor says" in sick and "12% of the episodes were lost to errors" in sick
    assert "What the doctor says" not in write_report(write_run(tmp_path / "well", healthy(40))).read_text()


class Notes:
    """A display that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def phase(self, name: str, total: int) -> None: ...

    def update(self, step: int, **shown: object) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_run_says_and_logs_each_finding_once_also_after_a_resume(tmp_path: Path) -> None:
    """A model of random weights never earns anything, which is noticed at the first evaluation after ten steps."""
    data: dict[str, Any] = {
        "name": "poor",
        "threads": 1,
        "model": {"tiny": {"hidden_size": 16, "layers": 1, "heads": 2, "kv_heads": 2, "intermediate_size": 16}},
        "envs": [{"name": ENV, "options": {"system_prompt": ""}}],
        "engine": {"slots": 4, "max_length": 200},
        "sampling": {"max_tokens": 2},
        "policy": {"steps": 16, "groups": 1, "group_size": 2, "options": {"kl_coef": 0.0}},
        "eval": {"tasks": 1, "every": 6},
        "checkpoint": {"every": 12},
    }
    first, second = Notes(), Notes()
    with RunFolder.create(make_recipe(data, "data"), tmp_path / "run") as run:
        train_recipe(run.recipe, run, display=first)
    said = [note for note in first.notes if note.startswith("Doctor: reward_constant (serious, step 12): ")]
    assert len(said) == 1 and sum("reward_constant" in note for note in first.notes) == 1
    shutil.rmtree(list_checkpoints(tmp_path / "run" / "checkpoints")[-1].path)  # as if killed after step 12
    with RunFolder.resume(tmp_path / "run") as run:
        train_recipe(run.recipe, run, resume=True, display=second)
        logged = [row for row in run.metrics() if row["phase"] == "doctor"]
    assert not any("reward_constant" in note for note in second.notes)
    assert [row["step"] for row in logged if row["name"] == "reward_constant"] == [12]
    assert set(logged[0]) == {"phase", "step", "seconds", "name", "severity", "wrong", "change"}


def test_the_documentation_has_a_row_for_every_finding() -> None:
    text = (Path(__file__).parents[1] / "docs" / "watching.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \((serious|warning)\) \|", text, re.M)
    assert set(documented) == {(name, finding_of(name).severity.value) for name in SICK}


def test_a_finding_is_plain_json() -> None:
    finding = Finding("name", "Wrong.", "Change.", 3, Severity.WARNING)
    assert json.loads(json.dumps(finding.to_json())) == {
        "name": "name", "severity": "warning", "wrong": "Wrong.", "change": "Change.",
    }  # fmt: skip
    assert str(finding) == "name (warning, step 3): Wrong. Change."
