"""The ledger: every group handed out is accounted for exactly once, in every way to play."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_partial_rollouts import Broken, partial
from test_train import Run, Vowels, ended, one_turn

from ludus.trainers.ledger import Ledger, LedgerError


@given(st.lists(st.sampled_from(["learn", "failed", "unused", "leave"]), max_size=30), st.integers(0, 30))
def test_all_ways_add_up(fates: list[str], cut: int) -> None:
    """Also where a checkpoint lies between, which knows what is open from whoever plays it."""
    ledger = Ledger()
    names = [f"g/{i}" for i in range(len(fates))]
    ledger.hand_out(names)
    left = []
    for index, (name, fate) in enumerate(zip(names, fates, strict=True)):
        if index == cut:
            ledger = Ledger.restored(ledger.state(), list(ledger.open))
        if fate == "learn":
            ledger.learn([name, name])  # of each of its episodes
        elif fate == "leave":
            left.append(name)
        else:
            ledger.drop([name], fate)
    line = ledger.finish(left)
    assert line.startswith(f"Groups handed out: {len(fates)}")
    for fate, said in {"learn": "learnt from", "failed": "failed", "unused": "unused", "leave": "given back"}.items():
        assert (f"{fates.count(fate)} {said}" in line) == (fate in fates)


def test_what_is_lost_or_counted_twice_is_named() -> None:
    ledger = Ledger()
    ledger.hand_out(["a/0", "a/1", "a/2"])
    with pytest.raises(LedgerError, match="a/1 was handed out twice"):
        ledger.hand_out(["a/1"])
    ledger.learn(["a/0"])
    with pytest.raises(LedgerError, match="The group a/0 is failed, and was not under way"):
        ledger.drop(["a/0"], "failed")
    with pytest.raises(LedgerError, match="what became of the groups a/1, a/2; please report"):
        ledger.finish([])


def test_a_roll_back_undoes_what_came_since() -> None:
    ledger = Ledger()
    ledger.hand_out("abcd")
    ledger.learn("ab")
    state = ledger.state()
    ledger.learn("c")
    ledger.roll_back(state)
    assert ledger.finish([]) == "Groups handed out: 4 (2 learnt from, 2 rolled back)."


@pytest.mark.parametrize(("algorithm", "mode"), [("grpo", "broken"), ("dapo", "share"), ("remax", "broken")])
def test_a_run_accounts_for_all(algorithm: str, mode: str) -> None:
    """With groups that have no spread, that are filled up, and of which every other one cannot begin."""
    make: Any = one_turn(mode) if mode == "share" else lambda: Broken(mode)
    options = {"max_refills": 20} if algorithm == "dapo" else {}
    with ended(Run(("v", make, 1.0), algorithm=algorithm, options=options, steps=3, groups=6)) as run:
        run.train()
        ledger = run.trainer.ledger
    learnt = {episode.group for episodes, _ in run.kept for episode in episodes}
    assert not ledger.open and ledger.handed_out == run.trainer.stream.total and ledger.learnt == len(learnt)
    assert (ledger.dropped["failed"] > 0) == (mode == "broken")
    if algorithm == "dapo":
        assert ledger.dropped["without spread"] > 0


def test_what_is_unfinished_is_given_back() -> None:
    with ended(Run(("letters", lambda: Broken("broken"), 1.0), steps=4, groups=4, options={"kl_coef": 0.0})) as run:
        partial(run, 3)
        run.train()
        left = run.trainer.unfinished
        assert left is not None and left.names()
        ledger = run.trainer.ledger
    assert ledger.handed_out + len(left.names()) == run.trainer.stream.total


def test_a_group_that_disappears_ends_the_run() -> None:
    with ended(Run(("vowels", Vowels, 1.0), steps=1)) as run:
        run.trainer.ledger.hand_out(["vowels/99"])
        with pytest.raises(LedgerError, match=r"what became of the groups vowels/99; please report this\.$"):
            run.train()
