"""check_env: every built-in environment keeps its contract, and a break of each part of it is noticed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import gymnasium
import pytest
from test_sandbox import processes

from ludus.envs import check_env as suite
from ludus.envs.check_env import check_env
from ludus.envs.errors import EnvError
from ludus.envs.registration import BUILTIN

IN_SANDBOX = ("HumanEval", "HumanEvalRepair", "Programs", "PythonMath", "RepoRepair", "Shell")


PROGRAMS = ("ludus/HumanEval-v0", "ludus/HumanEvalRepair-v0", "ludus/Programs-v0")
"""The contract of their verifier takes minutes to check; test_code_verifier.py and test_code_defences.py attack it."""


@pytest.fixture
def data(request: pytest.FixtureRequest, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUDUS_DATA", str(shared_data))
    if request.node.get_closest_marker("bubblewrap"):
        request.getfixturevalue("bubblewrap")


def names(among: Iterable[str]) -> list[object]:
    return [pytest.param(one, marks=pytest.mark.bubblewrap) if one[6:-3] in IN_SANDBOX else one for one in among]


@pytest.mark.slow
@pytest.mark.parametrize("name", names(sorted(BUILTIN)))
def test_every_environment_of_ludus_keeps_its_contract(data: None, name: str) -> None:
    report = check_env(name, tasks=2, deadline_s=30.0, episodes_only=name in PROGRAMS)
    report.raise_for_failures()
    told = {row.name for row in report.rows if row.status == "passed"}
    assert {"gymnasium", "tasks", "steps", "malformed", "end", "cleanup", "killed"} <= told
    assert "gold" in told or name in PROGRAMS


# --- what is noticed -------------------------------------------------------------------------------------------------


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the environment in counting_env.py, which other processes find as a plug-in."""
    info = tmp_path / "counting_env-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting-env\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gymnasium.envs]\ncounting = counting_env:register\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import counting_env

    counting_env.register()
    monkeypatch.setattr(suite, "GONE_S", 1.0)
    mark = f"90.{os.getpid()}"
    monkeypatch.setenv(counting_env.SLEEP, mark)
    yield "counting/Count-v0"
    del gymnasium.registry["counting/Count-v0"]
    for fd in counting_env.LEFT:
        os.close(fd)
    counting_env.LEFT.clear()
    counting_env.RELEASE.set()
    for thread in counting_env.WAITING:
        thread.join(20)
    counting_env.WAITING.clear()
    counting_env.RELEASE.clear()
    for left in processes(mark):
        with contextlib.suppress(OSError):
            os.kill(int(left), 9)


def test_an_environment_that_keeps_its_contract_passes(counting: str) -> None:
    report = check_env(counting, tasks=4)
    report.raise_for_failures()
    assert not [row.name for row in report.rows if row.status == "skipped" and row.name != "memory"]


@pytest.mark.parametrize(
    ("flaw", "row", "said"),
    [
        ("gymnasium", "gymnasium", "keep gymnasium.Env's interface"),
        ("tasks", "tasks", "Another process has other tasks"),
        ("starts", "tasks", "does not start the same episode"),
        ("steps", "steps", "have another effect"),
        ("late", "steps", "A step took"),
        ("raises", "steps", "RuntimeError: an accident"),
        ("malformed", "malformed", "An action raised RuntimeError"),
        ("nul", "malformed", "The infrastructure failed: an accident"),
        ("paid", "malformed", "is paid for"),
        ("end", "end", "takes another step"),
        ("descriptors", "cleanup", "descriptors"),
        ("threads", "cleanup", "threads"),
        ("processes", "cleanup", "processes"),
        ("killed", "killed", "processes behind"),
        ("words", "words", "Words alone are CORRECT"),
        ("state", "gold", "A demonstration is not CORRECT"),
    ],
)
def test_a_broken_part_of_the_contract_is_noticed(counting: str, flaw: str, row: str, said: str) -> None:
    deadline_s = 0.4 if flaw == "late" else 10.0
    report = check_env(counting, tasks=4, deadline_s=deadline_s, episodes_only=True, options={"flaw": flaw})
    found = report.row(row)
    assert found.status == "failed" and said in f"{found.what} {found.fix}", str(report)
    assert found.fix


def test_what_cannot_be_checked_is_told(counting: str) -> None:
    with pytest.raises(EnvError, match="Unknown environment"):
        check_env("counting/Cuont-v0")
    with pytest.raises(EnvError, match="tasks = 0"):
        check_env(counting, tasks=0)
