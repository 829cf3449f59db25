"""Roll-back: a step that spoils the policy costs the steps since the last checkpoint, and no more than that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_preference_rounds import BASE, back_to, ending_model, train, weights
from test_train import Run, ended, one_turn

from ludus.recipe import make_recipe
from ludus.trainers.algorithms import ALGORITHMS, Algorithm, get_algorithm
from ludus.trainers.checkpoint import list_checkpoints
from ludus.trainers.optimizer import NonFiniteError, SpikeError

SPOILED: list[str] = []
"""Tasks, by the number of their group, whose advantages are no numbers."""


@pytest.fixture(autouse=True)
def preset() -> Iterator[None]:
    def spoiled() -> Algorithm:
        """REINFORCE, but for episodes of some groups."""
        whole = get_algorithm("reinforce")

        def estimate(experience: Any, state: Any) -> Any:
            advantages, state = whole.estimator(experience, state)
            bad = [any(e.group.endswith(f"/{number}") for number in SPOILED) for e in experience.episodes]
            return [[a * np.nan if b else a for a in own] for own, b in zip(advantages, bad, strict=True)], state

        return replace(whole, name="spoiled", estimator=estimate)

    ALGORITHMS["spoiled"] = spoiled
    yield
    del ALGORITHMS["spoiled"]
    SPOILED.clear()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model, tokenizer = ending_model()
    place = tmp_path_factory.mktemp("model")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return {**BASE, "model": {"path": str(place)}}


def recipe_of(base: dict[str, Any], **policy: Any) -> Any:
    settings = {"algorithm": "spoiled", "steps": 6, "groups": 2, "group_size": 2, **policy}
    return make_recipe({**base, "policy": settings}, "small.yaml")


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_goes_back_to_its_checkpoint_and_on_with_other_tasks(base, tmp_path: Path) -> None:
    SPOILED[:] = ["6", "14"]  # in step 4, after the checkpoint of step 2; and in what is then steps 5 and 6
    recipe = recipe_of(base, rollbacks=2)
    train(recipe, tmp_path / "run")
    found = rows(tmp_path / "run")
    steps = [row["step"] for row in found if row["phase"] == "policy"]
    assert steps == [1, 2, 3, 4, 5, 6]
    back = [row for row in found if row["phase"] == "rollback"]
    assert [(row["number"], row["step"]) for row in back] == [(1, 2), (2, 4)]
    assert all("Policy step" in row["reason"] and "advantage of token" in row["reason"] for row in back)
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())

    again = back_to(tmp_path / "run", "policy-000002", tmp_path / "again")
    train(recipe, again, resume=True)  # meets the same task, goes back again, and ends alike
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(tmp_path / "run").items())


def test_a_run_goes_back_no_more_often_than_allowed(base, tmp_path: Path) -> None:
    SPOILED[:] = [str(number) for number in range(6, 40)]
    with pytest.raises(NonFiniteError, match=r"^Policy step 3: The advantage of token"):
        train(recipe_of(base, rollbacks=2), tmp_path / "run")
    back = [row for row in rows(tmp_path / "run") if row["phase"] == "rollback"]
    assert [row["number"] for row in back] == [2]
    SPOILED[:] = ["6"]
    with pytest.raises(NonFiniteError):
        train(recipe_of(base), tmp_path / "other")  # none is allowed unless asked for


def test_a_run_goes_back_and_leaves_behind_what_was_under_way(base, tmp_path: Path) -> None:
    """The groups that the checkpoint holds spoil the policy in whichever step they are learnt from."""
    base, pieces = {**base, "sampling": {"max_tokens": 60}}, {"partial_tokens": 4, "max_staleness": 3, "groups": 4}
    train(recipe_of(base, **pieces, steps=2), tmp_path / "before")
    (*_, checkpoint) = list_checkpoints(tmp_path / "before" / "checkpoints")
    left = json.loads(checkpoint.state()["unfinished"])
    SPOILED[:] = [group["requests"][0]["group"].rsplit("/", 1)[1] for group in left]
    assert SPOILED
    train(recipe_of(base, **pieces, rollbacks=1), tmp_path / "run")
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found if row["phase"] == "policy"] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in found if row["phase"] == "rollback"] == [2]


def test_a_spike_stops_a_run_and_needs_something_to_compare_with() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="reinforce", steps=30, spike=3.0, groups=8)) as run:
        run.trainer.norms = [1e-6] * 9
        run.trainer.step(0)
        assert len(run.trainer.norms) == 10
        run.trainer.norms = [1e-6] * 10
        with pytest.raises(SpikeError, match=r"^Policy step 2: the gradient norm is .* policy\.spike is 3; the last"):
            run.trainer.step(1)
        assert len(run.notes.rows) == 1
