"""What a sandbox costs beside a bare program, how fast it judges HumanEval, and what ten thousand runs leave behind."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ludus.envs.dataset_folder import dataset_folder
from ludus.envs.human_eval import load_functions
from ludus.sandbox import Limits, Result, Sandbox, SandboxError, open_sandbox
from ludus.sandbox.docker_engine import LABEL
from ludus.sandbox.docker_image import image_name
from ludus.sandbox.errors import LudusError
from ludus.verifiers import CodeVerifier, Outcome

from .measure import BenchmarkError, in_turns, ratio, seconds_of
from .options import Options
from .table import Table, verdict

PYTHON = str(Path(sys.base_prefix, "bin", "python3"))
PROGRAMS = {
    "Python without its site packages": [PYTHON, "-I", "-S", "-c", "pass"],
    "Python": [PYTHON, "-c", "pass"],
    "true": ["true"],
}
"""The first is the measure; the last shows what bubblewrap and its bounds cost by themselves."""
_SETTLE_S = 10.0
"""How long the system may take to count out what has ended."""


def run(options: Options) -> list[Table]:
    """The time of a run, that of a program in a session, that of judging, and what is left after many runs."""
    with ExitStack() as stack:
        try:
            bubblewrap = stack.enter_context(open_sandbox("bubblewrap"))
        except SandboxError as error:
            raise BenchmarkError(str(error)) from error
        sandboxes = [bubblewrap]
        missing = ""
        try:
            sandboxes.append(stack.enter_context(open_sandbox("docker")))
        except SandboxError as error:
            missing = f"Docker was not measured: {error}"
        tables = [_starts(bubblewrap, options), _in_sessions(sandboxes, options), _judging(sandboxes, options)]
    tables.append(_leftovers("bubblewrap", 50 if options.quick else 10_000, 0))
    if not missing:
        tables.append(_leftovers("docker", *((2, 10) if options.quick else (500, 9_500))))
    for table in tables if missing else ():
        table.notes.append(missing)
    return tables


def _starts(sandbox: Sandbox, options: Options) -> Table:
    columns = {"program": "", "bare, ms": ".2f", "in bubblewrap, ms": ".2f", "ratio": ".2f", "target": ""}
    table = Table("Starting a program in a sandbox", columns)
    for name, argv in PROGRAMS.items():

        def bare(argv: list[str] = argv) -> None:
            subprocess.run(
                argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin"}
            )

        def held(argv: list[str] = argv) -> None:
            if not sandbox.run(argv).ok:
                raise BenchmarkError(f"{argv[0]} does not run in the sandbox.")

        sides = {"bare": lambda: 1e3 * seconds_of(bare), "held": lambda: 1e3 * seconds_of(held)}
        found = in_turns(sides, options.times(101), warmups=5)
        ratios = ratio(found["held"], found["bare"])
        table.add(
            name, found["bare"], found["held"], ratios, verdict(ratios, "at most", 2.0) if name != "true" else None
        )
    table.notes.append(f"Medians of {options.times(101)} runs each (smallest to largest), in turns.")
    return table


def _in_sessions(sandboxes: Sequence[Sandbox], options: Options) -> Table:
    """A program in a session beside `docker exec` of the same, where there is an engine."""
    columns = {"program": "", "docker exec, ms": ".2f", "session, ms": ".2f", "ratio": ".2f", "target": ""}
    table = Table("A program in a container, or a session, that is there already", columns)
    if len(sandboxes) < 2:
        return table
    bubblewrap, docker = sandboxes
    program = shutil.which("docker")
    if program is None:
        raise BenchmarkError("The command `docker` is not here; apt-get install docker.io.")
    name = f"ludus-bench-{os.getpid()}"
    limits = ["--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--memory=512m", "--pids-limit=65"]
    command = [program, "run", "--rm", "--detach", "--init", f"--name={name}", *limits, image_name(), "sleep", "600"]
    subprocess.run(command, check=True, capture_output=True)
    try:
        with docker.open_session() as contained, bubblewrap.open_session() as held:
            argv = ["python3", "-I", "-S", "-c", "pass"]

            def exec_() -> None:
                subprocess.run([program, "exec", name, *argv], check=True, capture_output=True)

            sides = {"exec": lambda: 1e3 * seconds_of(exec_)}
            sides["docker"] = lambda: 1e3 * seconds_of(lambda: contained.exec(argv))
            sides["bubblewrap"] = lambda: 1e3 * seconds_of(lambda: held.exec(argv))
            found = in_turns(sides, options.times(51), warmups=3)
    finally:
        subprocess.run([program, "kill", name], check=True, capture_output=True)
    for kind in ("docker", "bubblewrap"):
        ratios = ratio(found[kind], found["exec"])
        target = verdict(ratios, "at most", 1.5) if kind == "docker" else None
        table.add(f"Python in a session of {kind}", found["exec"], found[kind], ratios, target)
    table.notes.append(f"Medians of {options.times(51)} (smallest to largest), in turns.")
    return table


def _judging(sandboxes: Sequence[Sandbox], options: Options) -> Table:
    """HumanEval's own solutions and as many stubs, two at a time."""
    table = Table(
        "Judging HumanEval's solutions, and stubs of them",
        {"sandbox": "", "programs": ",d", "judged rightly": ",d", "seconds": ".1f", "target": ""},
    )
    try:
        functions = load_functions(dataset_folder("humaneval", None, "HumanEval.jsonl.gz"))[
            : 2 if options.quick else None
        ]
    except LudusError as error:
        raise BenchmarkError(str(error)) from error
    todo = [(one.answer, one.data["solution"], Outcome.CORRECT) for one in functions]
    todo += [(one.answer, "    pass\n", Outcome.WRONG) for one in functions]
    for sandbox in sandboxes:
        verifier = CodeVerifier(sandbox)

        def right(one: tuple[Any, str, Outcome], verifier: CodeVerifier = verifier) -> bool:
            gold, body, outcome = one
            return verifier.verify(gold, body).outcome is outcome

        begun = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            rightly = sum(pool.map(right, todo))
        seconds = time.perf_counter() - begun
        table.add(sandbox.name, len(todo), rightly, seconds, verdict(seconds, "at most", 60.0))
    return table


def _leftovers(name: str, runs: int, more: int) -> Table:
    """Every tenth run starts a child that stays, every hundredth is ended at its time. more: programs in sessions, a
    hundred in each."""
    mark = f"ludus-bench-{os.getpid()}"
    gc.collect()
    before = _standing(mark)
    with open_sandbox(name) as sandbox:
        sandbox.run(["true"])
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _leave(sandbox.run, runs, mark)
        for first in range(0, more, 100):
            with sandbox.open_session() as session:
                _leave(session.exec, min(100, more - first), mark)
        deadline = time.monotonic() + _SETTLE_S
        while _cgroups() > before["cgroups"] and time.monotonic() < deadline:
            sandbox.run(["true"])  # which removes what the one before it could not remove yet
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib) / 1024
    deadline = time.monotonic() + _SETTLE_S
    after = _standing(mark)
    while any(after[what] > before[what] for what in before) and time.monotonic() < deadline:
        time.sleep(0.1)
        after = _standing(mark)
    title = f"What {runs:,} runs{f' and {more:,} programs in sessions' if more else ''} leave behind: {name}"
    table = Table(title, {"what": "", "before": ",d", "after": ",d", "target": ""})
    for what in before:
        table.add(what, before[what], after[what], "met" if after[what] <= before[what] else "MISSED")
    table.notes.append(f"Peak memory of this process grew by {grown_mib:.1f} MiB.")
    return table


def _leave(run: Callable[..., Result], times: int, mark: str) -> None:
    for number in range(times):
        if number % 100 == 99:
            run(["sleep", "60", mark], limits=Limits(wall_s=0.02))
        elif number % 10 == 9:
            run(["sh", "-c", "sleep 60 & exit 0", mark])
        else:
            run(["true", mark])


def _standing(mark: str) -> dict[str, int]:
    processes = 0
    for folder in Path("/proc").iterdir():
        try:
            processes += folder.name.isdecimal() and mark.encode() in (folder / "cmdline").read_bytes()
        except OSError:
            continue
    containers: list[str] = []
    if program := shutil.which("docker"):
        listed = subprocess.run(
            [program, "ps", "--all", "--quiet", f"--filter=label={LABEL}"], capture_output=True, text=True
        )
        containers = listed.stdout.split()
    return {
        "processes": processes,
        "containers": len(containers),
        "file descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "cgroups": _cgroups(),
    }


def _cgroups() -> int:
    return sum(1 for _ in Path("/sys/fs/cgroup").rglob(f"ludus-{os.getpid()}-*"))
