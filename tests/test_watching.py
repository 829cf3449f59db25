"""The curves of a step, each against numbers worked out by hand or straight from the tokens."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_policy_gradient import SHAPE, make_episodes
from test_train import Run, Vowels, ended, one_turn

from ludus.agents.model import create_tiny_model
from ludus.agents.trajectory import Episode
from ludus.envs.task import Task
from ludus.trainers.algorithms import Experience, get_algorithm
from ludus.trainers.batch import Row
from ludus.trainers.policy import describe, outcome_shares
from ludus.trainers.policy_step import accumulate, build_rows, frozen_logprobs, percentiles
from ludus.verifiers.verdict import Verdict


def episodes() -> list[Episode]:
    """Ten episodes, whose lengths are 1 to 10 sampled tokens, with all ways to end."""
    verdicts: list[Verdict | None] = [
        *[Verdict.correct("")] * 3, Verdict.wrong(""), Verdict.wrong("", undecided=True), Verdict.undecided(""),
        Verdict.partial(0.5, ""), None, Verdict.error("the grader is away"), None,
    ]  # fmt: skip
    made = []
    for number, (episode, verdict) in enumerate(zip(make_episodes(0)[:10], verdicts, strict=True)):
        lost = number >= 8
        (trajectory,) = episode.trajectories
        length = number + 1
        mask = (False, *[True] * length)
        short = replace(
            trajectory, token_ids=(7,) * (length + 1), mask=mask, logprobs=(-1.0,) * (length + 1),
            versions=(0,) * (length + 1),
        )  # fmt: skip
        made.append(
            replace(
                episode,
                verdict=verdict,
                reward=None if lost else 0.5,
                error="lost" if lost else None,
                stop_reason="length" if number == 7 else "answered",
                truncated=number in (6, 7),
                trajectories=(short,),
                group=str(number % 2),
            )
        )
    return made


def test_outcomes_are_shares_of_all_episodes_with_undecided_and_error_apart() -> None:
    assert outcome_shares(episodes()) == {
        "outcome/correct": 0.3, "outcome/wrong": 0.1, "outcome/undecided": 0.2, "outcome/partial": 0.1,
        "outcome/none": 0.1, "outcome/error": 0.2,
    }  # fmt: skip


def test_lengths_and_truncation_by_hand() -> None:
    played = episodes()
    curves = describe(played, Experience(played, np.zeros(10), np.zeros(10)))
    assert [curves[f"length/p{p}"] for p in (10, 50, 90)] == pytest.approx([1.9, 5.5, 9.1])
    assert (curves["length"], curves["length_max"]) == (5.5, 10.0)
    assert (curves["truncated"], curves["truncated/length"]) == (0.2, 0.1)


def test_percentiles_lie_on_the_line_between_two_values() -> None:
    assert percentiles("x", np.array([4.0, 1.0, 2.0]), (0, 25, 50, 75)) == {
        "x/p0": 1.0, "x/p25": 1.5, "x/p50": 2.0, "x/p75": 3.0,
    }  # fmt: skip


@pytest.mark.parametrize("micro_batch_tokens", [40, 10_000])
def test_divergences_and_ratios_are_those_of_the_step_s_tokens_however_it_is_cut(micro_batch_tokens: int) -> None:
    model, _ = create_tiny_model(SHAPE, 0)
    algorithm = get_algorithm("grpo", kl_coef=0.1)
    played = make_episodes(3)
    rng = np.random.default_rng(0)
    flat = [[np.where(t.mask, 1.0, 0.0) for t in episode.trajectories] for episode in played]
    rows: list[Row] = build_rows(algorithm, played, flat)
    logprobs = frozen_logprobs(model, rows, 10_000)
    olds = [values + rng.normal(0, 0.3, len(values)) for values in logprobs]
    references = [values + rng.normal(0, 0.5, len(values)) for values in logprobs]
    known = [replace(row, old=o, reference=r) for row, o, r in zip(rows, olds, references, strict=True)]
    curves = accumulate(algorithm, model, known, micro_batch_tokens)

    def sampled(values: list[Any]) -> np.ndarray:
        return np.concatenate([np.asarray(v)[list(r.trajectory.mask)] for v, r in zip(values, rows, strict=True)])

    new, old, reference = sampled(logprobs), sampled(olds), sampled(references)
    sampler = sampled([row.trajectory.logprobs for row in rows])
    ratio = np.exp(new - old)
    expected = {
        "ratio": ratio.mean(),
        **{f"ratio/p{p}": np.quantile(ratio, p / 100) for p in (1, 50, 99)},
        "kl_reference": (new - reference).mean(),
        "kl_reference/k3": (np.exp(reference - new) - 1 - (reference - new)).mean(),
        "kl_sampler": (sampler - old).mean(),
        "kl_sampler/k3": (np.exp(old - sampler) - 1 - (old - sampler)).clip(max=10).mean(),
        "clip_fraction/high": (ratio > 1.2).mean(),
        "clip_fraction/low": 0.0,
        "clip_fraction": (ratio > 1.2).mean(),
    }
    assert {name: curves[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_divergence_that_is_priced_in_the_reward_has_its_curves_too() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="rloo", options={"kl_coef": 0.1}, steps=3)) as run:
        rows = run.train()
    assert rows[0]["kl_reference/k3"] > 0 and "kl_reference" in rows[0]


@pytest.mark.parametrize(
    ("algorithm", "options"), [("ppo", {"kl_coef": 0.1}), ("ppo_kl", {}), ("grpo", {"kl_coef": 0.1})]
)
def test_every_curve_is_documented(algorithm: str, options: dict[str, Any]) -> None:
    envs = (("a", one_turn(), 1.0), ("b", one_turn(), 1.0))
    with ended(Run(*envs, algorithm=algorithm, options=options, steps=1, groups=4, minibatches=2)) as run:
        (row,) = run.train()
    text = (Path(__file__).parents[1] / "docs" / "watching.md").read_text()
    table = "".join(line for line in text.splitlines() if line.startswith("| `"))
    for name in row.keys() - {"phase", "step"}:
        head, slash, part = name.partition("/")
        assert f"`{head}" in table, name
        assert head in ("reward", "reward_part") or not slash or f"/{part}`" in table, name


def test_the_sampler_is_compared_before_the_step_s_minibatches_move_the_policy() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), options={"kl_coef": 0.0}, steps=2, minibatches=4)) as run:
        rows = run.train()
    assert all(abs(row["kl_sampler"]) < 1e-5 and row["kl_sampler/k3"] < 1e-6 for row in rows)
    assert all(row["ratio/p1"] < 1 < row["ratio/p99"] for row in rows)


def test_the_seconds_of_verification_and_the_three_speeds_fit_together() -> None:
    class Slow(Vowels):
        def verify(self, task: Task, response: str) -> Verdict:
            time.sleep(0.02)
            return super().verify(task, response)

    with ended(Run(("vowels", partial(Slow), 1.0), options={"kl_coef": 0.0}, steps=1)) as run:
        (row,) = run.train()
        ((played, _),) = run.kept
    judged = [episode for episode in played if episode.verdict is not None]
    assert judged and all(0.02 <= e.verify_seconds <= e.seconds for e in judged)
    assert all(e.verify_seconds == 0 for e in played if e.verdict is None)
    assert row["verify_seconds"] == pytest.approx(sum(e.verify_seconds for e in played))
    sampled = row["length"] * row["episodes"]
    for part in ("rollout", "verify", "train"):
        assert row[f"{part}_tokens_per_second"] * row[f"{part}_seconds"] == pytest.approx(sampled)
