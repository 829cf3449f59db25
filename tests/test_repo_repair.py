"""RepoRepair: every bug is one, the checks are right, and only a mended project is paid for."""

from __future__ import annotations

import contextlib
import datetime
import json
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus import Outcome, make_env
from ludus.envs.repair_checks import CALLS, expected_values, project_files
from ludus.envs.repair_project.depot import codes, moves, spans, ways
from ludus.envs.repair_project.ledger import accounts, calendar, money, tables
from ludus.envs.repo_repair import RepoRepair, bugs, candidates, judge, prove
from ludus.envs.task import Task
from ludus.envs.text_env import EnvStop
from ludus.envs.tool_call import render_call
from ludus.sandbox import Limits
from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.verifiers import CodeVerifier

DATES = st.dates(datetime.date(1900, 1, 1), datetime.date(2200, 12, 31))


@pytest.fixture(scope="module")
def env(bubblewrap: Bubblewrap) -> RepoRepair:
    return RepoRepair(sandbox="bubblewrap", max_turns=40)


def call(env: RepoRepair, name: str, **arguments: str) -> str:
    tool = next(tool for tool in env.tools if tool.name == name)
    return env.step(render_call(tool, arguments, env.dialect))[0]


# --- the project itself, against other sources -----------------------------------------------------------------------


@given(first=DATES, last=DATES)
def test_the_calendar_agrees_with_pythons(first: datetime.date, last: datetime.date) -> None:
    assert calendar.between(first.isoformat(), last.isoformat()) == (last - first).days
    assert calendar.day_of_year(first.isoformat()) == first.timetuple().tm_yday
    days = (last - first).days % 3_000
    assert calendar.add_days(first.isoformat(), days) == (first + datetime.timedelta(days)).isoformat()
    assert calendar.add_days(first.isoformat(), -days) == (first - datetime.timedelta(days)).isoformat()


@given(cents=st.integers(-(10**9), 10**9), parts=st.integers(1, 50))
def test_amounts_come_back_and_shares_add_up(cents: int, parts: int) -> None:
    assert money.parse(money.show(cents)) == cents
    shares = money.split(cents, parts)
    assert sum(shares) == cents and len(shares) == parts
    assert max(shares) - min(shares) <= 1 and shares == sorted(shares, reverse=True)
    assert sum(money.change(abs(cents) % 10_000, 0)) == abs(cents) % 10_000


@given(text=st.text(alphabet="ab c", max_size=60), width=st.integers(3, 20))
def test_wrapped_lines_hold_all_words_and_fit(text: str, width: int) -> None:
    lines = tables.wrap(text, width)
    assert " ".join(lines).split() == text.split()
    assert all(len(line) <= width or " " not in line for line in lines)


BOOKINGS = st.lists(
    st.tuples(DATES.map(datetime.date.isoformat), st.sampled_from("ab"), st.integers(-999, 999)).map(list), max_size=12
)


@given(bookings=BOOKINGS)
def test_balances_agree_with_sums(bookings: list[list]) -> None:
    total = sum(cents for _, name, cents in bookings if name == "a")
    assert accounts.balance(bookings, "a") == total
    assert accounts.balances(bookings).get("a", 0) == total
    days = sorted({date for date, name, _ in bookings if name == "a"})
    assert accounts.lowest(bookings, "a") == min([0, *(accounts.balance(bookings, "a", day) for day in days)])
    if len(days) < 2 or days[0][:3] == days[-1][:3]:
        assert sum(accounts.by_month(bookings, "a").values()) == total


@given(number=st.integers(0, 10**9), code=st.text(alphabet="0123456789", min_size=1, max_size=30))
def test_short_codes_come_back_and_one_check_digit_is_right(number: int, code: str) -> None:
    assert codes.number_of(codes.short(number)) == number
    assert codes.groups(code).replace(" ", "") == code and len(codes.mask(code)) == len(code)
    right = [digit for digit in "0123456789" if codes.is_valid(code[:12].zfill(12) + digit)]
    assert right == [str(codes.check_digit(code[:12].zfill(12)))]


@given(
    spans_=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6)).map(lambda one: [one[0], one[0] + one[1]])),
    size=st.integers(1, 40),
    width=st.integers(1, 9),
)
def test_spans_agree_with_sets_of_places(spans_: list[list[int]], size: int, width: int) -> None:
    def places(some: list[list[int]]) -> list[int]:
        return [place for first, last in some for place in range(first, last + 1)]

    covered, gaps = set(places(spans_)), spans.free(spans_, size)
    assert places(spans.merge(spans_)) == sorted(covered)
    assert places(gaps) == [place for place in range(1, size + 1) if place not in covered]
    wide = [gap for gap in gaps if spans.length(gap) >= width]
    assert spans.fit(spans_, size, width) == (min(wide, key=lambda gap: (gap[1] - gap[0], gap))[0] if wide else None)
    assert not spans_ or spans.parse(spans.show(spans_)) == spans_


@given(bought=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99)), min_size=1, max_size=8), data=st.data())
def test_what_was_bought_is_sold_or_left(bought: list[tuple[int, int]], data: st.DataObject) -> None:
    one_by_one = [cents for pieces, cents in bought for _ in range(pieces)]
    sold = data.draw(st.integers(0, len(one_by_one)))
    every = [*(["nut", pieces, cents] for pieces, cents in bought), ["nut", -sold, 0], ["bolt", 5, 7]]
    assert moves.cost(every, "nut") == sum(one_by_one[:sold])
    assert moves.value(every, "nut") == sum(one_by_one[sold:])
    assert moves.on_hand(every, "nut") == len(one_by_one) - sold and moves.first_shortage(every) is None


@given(hall=st.lists(st.text(alphabet="..#", min_size=4, max_size=4), min_size=2, max_size=5))
def test_ways_agree_with_relaxing_every_step(hall: list[str]) -> None:
    free = [[row, column] for row in range(len(hall)) for column in range(4) if hall[row][column] != "#"]
    assert ways.turned(ways.turned(ways.turned(ways.turned(hall)))) == hall
    for start in free[:1]:
        far = {tuple(start): 0}
        for _ in free:
            for (row, column), count in list(far.items()):
                for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                    if [r, c] in free:
                        far[r, c] = min(far.get((r, c), 99), count + 1)
        assert [ways.steps(hall, start, end) for end in free] == [far.get(tuple(end)) for end in free]


def test_hidden_checks_ask_for_every_function_more_than_once() -> None:
    modules = {"ledger": (accounts, calendar, money, tables), "depot": (codes, moves, spans, ways)}
    assert set(CALLS) == set(modules)
    for package, calls in CALLS.items():
        functions = {
            f"{module.__name__.rpartition('.')[2]}.{name}"
            for module in modules[package]
            for name, one in vars(module).items()
            if callable(one)
        }
        assert set(calls) == functions == set(expected_values(package))
        assert all(len(some) > 1 for some in calls.values())


# --- the bugs --------------------------------------------------------------------------------------------------------


@pytest.mark.bubblewrap
@pytest.mark.slow
def test_every_listed_bug_fails_the_checks_and_no_other_mutation_does(bubblewrap: Bubblewrap) -> None:
    verifier = CodeVerifier(bubblewrap, limits=Limits(wall_s=4.0, cpu_s=1.0))
    with ThreadPoolExecutor(2) as threads:
        proven = threads.map(lambda one: prove(*one, verifier), candidates())
        found = [bug.key for bug in proven if bug is not None]
    listed = json.loads(files("ludus.envs").joinpath("repair_project/bugs.json").read_text())
    assert found == listed
    assert len(listed) > 300
    for package in CALLS:
        assert judge(package, project_files(package), verifier).outcome is Outcome.CORRECT


def test_train_and_test_share_no_bug_and_no_file() -> None:
    splits = [RepoRepair(split=split).source.tasks for split in ("train", "test")]
    hashes, paths = ([{one(task) for task in tasks} for tasks in splits] for one in (_hash, _path))
    assert not hashes[0] & hashes[1] and not paths[0] & paths[1]
    assert sum(map(len, hashes)) == len(bugs()) and min(map(len, hashes)) > 150
    texts = [{text for text in project_files(package).values() if "def " in text} for package in CALLS]
    assert not texts[0] & texts[1]


def _hash(task: Task) -> str:
    return task.hash


def _path(task: Task) -> str:
    return task.data["path"]


@pytest.mark.bubblewrap
def test_the_train_project_learnt_by_heart_is_not_paid_for_in_the_test(bubblewrap: Bubblewrap) -> None:
    with contextlib.closing(RepoRepair(split="test", sandbox=bubblewrap)) as test:
        test.reset(options={"index": 0})
        for path, text in project_files("ledger").items():
            test.write_file(path, text)
        assert test.step("Done.")[1] == 0.0
        for index in range(0, test.source.size, 80):
            test.reset(options={"index": index})
            for action in test.demonstrate(test.task, np.random.default_rng(index)):
                reward = test.step(action)[1]
            assert reward == 1.0


def test_undoing_a_bug_gives_the_unbroken_project_back() -> None:
    for task in (*RepoRepair().source.tasks, *RepoRepair(split="test").source.tasks):
        assert task.data["source"].count(task.data["after"]) == 1
        mended = task.data["source"].replace(task.data["after"], task.data["before"])
        assert mended == project_files(_path(task).partition("/")[0])[_path(task)]
        assert task.data["before"] not in task.prompt


# --- episodes --------------------------------------------------------------------------------------------------------


@pytest.mark.bubblewrap
def test_a_demonstration_mends_the_bug_and_a_flawed_one_does_not(env: RepoRepair) -> None:
    for index in range(0, env.source.size, 25):
        for flaw_rate, reward in ((0.0, 1.0), (1.0, 0.0)):
            env.reset(options={"index": index})
            for action in env.demonstrate(env.task, np.random.default_rng(index), flaw_rate):
                _, got, terminated, _, info = env.step(action)
            assert terminated and got == reward and info["stop_reason"] is EnvStop.ANSWER


@pytest.mark.bubblewrap
def test_the_tools_show_search_and_change_the_project(env: RepoRepair) -> None:
    env.reset(options={"index": 0})
    assert set(call(env, "list_files").split()) == set(project_files("ledger"))
    assert "def show(cents):" in call(env, "read_file", path="ledger/money.py")
    assert call(env, "search", text="def split(").startswith("./ledger/money.py:")
    assert call(env, "search", text="no such text") == "[exit code 1]"
    assert "Ran 6 tests" in call(env, "run_tests")
    assert "stands 0 times" in call(env, "edit", path="ledger/money.py", old="no such text", new="x")
    assert "times in ledger/money.py; give" in call(env, "edit", path="ledger/money.py", old="return", new="x")
    for path in ("nothing.py", "../up", "/etc/passwd", "ledger", ""):
        assert call(env, "read_file", path=path).startswith("Error: ")


@pytest.mark.bubblewrap
@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("ledger/money.py", "import os\nos._exit(0)\n"),
        ("ledger/__init__.py", "import sys\nsys.exit(0)\n"),
        (
            "ledger/money.py",
            "class Yes:\n    __eq__ = lambda *_: True\ndef __getattr__(name):\n    return lambda *_: Yes()\n",
        ),
        ("ledger/money.py", "\xff" * 10),
        ("test_ledger.py", "print('OK')"),
        ("conftest.py", "print('OK')"),
        ("sitecustomize.py", "print('OK')"),
    ],
)
def test_what_is_no_repair_is_not_paid_for(env: RepoRepair, path: str, content: str) -> None:
    env.reset(options={"index": 0})
    env.session.write_file(path, content)
    _, reward, terminated, _, info = env.step("The bug is mended, all tests pass: reward 1.")
    assert (reward, terminated) == (0.0, True) and info["verdict"].outcome is Outcome.WRONG


@pytest.mark.bubblewrap
def test_a_project_without_its_modules_is_wrong(env: RepoRepair) -> None:
    for command in ("rm -r ledger", "rm ledger/money.py; mkdir ledger/money.py", "rm ledger/*; mkfifo ledger/money.py"):
        env.reset(options={"index": 0})
        env.session.exec(["sh", "-c", command])
        assert env.step("Done.")[1] == 0.0


@pytest.mark.bubblewrap
def test_no_session_outlives_its_episode(env: RepoRepair) -> None:
    env.reset(options={"index": 0})
    call(env, "list_files")
    session = env.session
    env.reset(options={"index": 1})
    assert session.over
    call(env, "list_files")
    session = env.session
    env.step("Done.")
    assert session.over
    again = make_env("ludus/RepoRepair-v0")
    again.reset(options={"index": 0})
    session = again.session
    again.close()
    assert session.over


@pytest.mark.bubblewrap
@pytest.mark.parametrize("comment", ["# done 😀", "# </think>", "# ```"])
def test_a_right_repair_may_say_what_it_likes(env: RepoRepair, comment: str) -> None:
    _, info = env.reset(options={"index": 0})
    assert env.task is not None
    path, old, new = (env.task.data[name] for name in ("path", "after", "before"))
    env.write_file(path, env.read_file(path).replace(old, new) + f"{comment}\n")
    *_, info = env.step("Done.")
    assert info["verdict"].outcome is Outcome.CORRECT
