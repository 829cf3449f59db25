"""The sandbox holds every attack, and each of its defences is the one that holds some."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ludus.cli import app
from ludus.sandbox import Limits, Result, Sandbox, SandboxError, Status, check_sandbox, open_sandbox
from ludus.sandbox.attack import Attack
from ludus.sandbox.attacks import ATTACKS
from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.sandbox.bubblewrap_command import DEFENCES
from ludus.sandbox.job import Job
from ludus.sandbox.landlock import landlock_abi

ATTACK = {attack.name: attack for attack in ATTACKS}
HELD_BY = {
    "seccomp": ["watching another process", "the kernel's keyring", "rings that filters do not see"],
    "cgroup": ["memory of many processes"],
    "rlimits": ["all descriptors", "huge file with nothing in it", "dump of its memory", "higher limits"],
    "network": ["TCP to the host", "UDP to the host", "TCP over IPv6 to the host"],
    "processes": ["daemon", "daemon of a daemon", "processes of the host"],
    "environment": ["environment of the host"],
    "capabilities": ["capabilities"],
    "read-only root": ["the root folder"],
    "read-only system": ["system folders"],
    "bounded disk": ["full disk", "full shared memory folder"],
    "ipc": ["shared memory of the host"],
}
"""What gets through where one defence is taken away."""
ROOT_ONLY = {"read-only proc": ["settings of the kernel"]}
"""Where Ludus runs as another user, the kernel itself keeps these."""
BEHIND = {
    "landlock": {
        "network": ["socket of the host without a file"],
        "processes": ["ending a process of the host"],
    }
}
"""A second line: what gets through only where a first line is taken away, too."""


@pytest.mark.bubblewrap
@pytest.mark.slow
def test_bubblewrap_holds_every_attack(bubblewrap: Bubblewrap) -> None:
    report = check_sandbox(bubblewrap)
    assert len(report.rows) > 80
    assert report.passed, str(report)


@pytest.mark.bubblewrap
@pytest.mark.parametrize(("defence", "attack"), [(one, name) for one, names in HELD_BY.items() for name in names])
def test_without_its_defence_an_attack_succeeds_and_is_noticed(
    bubblewrap: Bubblewrap, defence: str, attack: str
) -> None:
    with Bubblewrap(_without=[defence]) as weak:
        assert not check_sandbox(weak, [ATTACK[attack]]).passed


@pytest.mark.bubblewrap
def test_for_root_the_settings_of_the_kernel_are_held_by_a_read_only_proc(bubblewrap: Bubblewrap) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root could write them")
    with Bubblewrap(_without=["read-only proc"]) as weak:
        assert not check_sandbox(weak, [ATTACK["settings of the kernel"]]).passed


@pytest.mark.bubblewrap
@pytest.mark.parametrize(
    ("first", "attack"), [(one, name) for one, names in BEHIND["landlock"].items() for name in names]
)
def test_landlock_is_a_second_line_behind_the_namespaces(bubblewrap: Bubblewrap, first: str, attack: str) -> None:
    if landlock_abi() < 6:
        pytest.skip("the kernel is older than Landlock's scopes")
    with Bubblewrap(_without=[first]) as weak:
        assert check_sandbox(weak, [ATTACK[attack]]).passed
    with Bubblewrap(_without=[first, "landlock"]) as weaker:
        assert not check_sandbox(weaker, [ATTACK[attack]]).passed


def test_each_defence_is_proven_somewhere() -> None:
    elsewhere = {"end with parent"}  # test_sandbox.py
    assert {*HELD_BY, *ROOT_ONLY, *BEHIND, *elsewhere} == set(DEFENCES)


# --- the suite itself ------------------------------------------------------------------------------------------------


class Says(Sandbox):
    """A sandbox that runs nothing and always says the same."""

    name, limits, isolates = "says", Limits(), True

    def __init__(self, **said: object) -> None:
        self.said = {"status": Status.EXITED, "exit_code": 0, "stdout": "", "stderr": "", **said}

    def execute(self, job: Job) -> Result:
        if job.files:
            return Result(Status.EXITED, 3, "infile\n", "")
        if len(job.argv) == 3:
            return Result(Status.EXITED, 0, "42 []\n", "")
        return Result(**self.said)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"stdout": "ESCAPED: the network\n"}, "the network"),
        ({"status": Status.FAILED, "exit_code": None}, "ended as failed"),
        ({"exit_code": 1, "stderr": "Traceback: NameError"}, "could not be carried out"),
    ],
)
def test_what_an_attack_says_and_how_it_ends_counts(said: dict[str, object], found: str) -> None:
    report = check_sandbox(Says(**said), [Attack("an attack", "pass")])
    assert found in report.row("an attack").what


def test_a_program_left_behind_is_noticed() -> None:
    class Leaves(Says):
        def execute(self, job: Job) -> Result:
            if len(job.argv) == 4:
                self.left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", job.argv[3]])
            return super().execute(job)

    sandbox = Leaves()
    report = check_sandbox(sandbox, [Attack("an attack", "pass")])
    assert "outlived it" in report.row("an attack").what
    assert sandbox.left.wait(10) == -9


def test_what_is_no_sandbox_or_isolates_nothing_is_refused() -> None:
    with pytest.raises(SandboxError, match="no sandbox"):
        check_sandbox("bubblewrap")  # type: ignore[arg-type]
    with pytest.raises(SandboxError, match="isolates nothing"):
        check_sandbox(open_sandbox("plain"))


def test_an_honest_program_that_does_not_run_fails_the_suite_at_once() -> None:
    class Broken(Says):
        def execute(self, job: Job) -> Result:
            return Result(Status.FAILED, None, "", "", reason="broken")

    report = check_sandbox(Broken(), [Attack("an attack", "pass")])
    assert [row.status for row in report.rows] == ["failed"]


def test_the_command_line_refuses_options_that_a_sandbox_has_not() -> None:
    done = CliRunner().invoke(app, ["check", "bubblewrap", "--set", "a=1"])
    assert done.exit_code != 0 and "leave --pairs and --set out" in f"{done.output}{done.exception}"
