"""What a sandbox costs: a run in bubblewrap beside the same program bare, and what ten thousand runs leave behind."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from ludus.sandbox import Limits, SandboxBase, SandboxError, open_sandbox

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


def run(options: Options) -> list[Table]:
    """Two tables: the time of a run, and what is left after many."""
    try:
        sandbox = open_sandbox("bubblewrap")
    except SandboxError as error:
        raise BenchmarkError(str(error)) from error
    with sandbox:
        return [_starts(sandbox, options), _leftovers(sandbox, 50 if options.quick else 10_000)]


def _starts(sandbox: SandboxBase, options: Options) -> Table:
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


def _leftovers(sandbox: SandboxBase, runs: int) -> Table:
    """Every tenth run starts a child that stays, every hundredth is ended at its time."""
    mark = f"ludus-bench-{os.getpid()}"
    sandbox.run(["true"])
    before = _standing(mark)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(runs):
        if number % 100 == 99:
            sandbox.run(["sleep", "60", mark], limits=Limits(wall_s=0.02))
        elif number % 10 == 9:
            sandbox.run(["sh", "-c", "sleep 60 & exit 0", mark])
        else:
            sandbox.run(["true", mark])
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib) / 1024
    after = _standing(mark)
    table = Table(f"What {runs:,} runs leave behind", {"what": "", "before": ",d", "after": ",d", "target": ""})
    for name in before:
        table.add(name, before[name], after[name], "met" if after[name] <= before[name] else "MISSED")
    table.notes.append(f"Peak memory of this process grew by {grown_mib:.1f} MiB.")
    return table


def _standing(mark: str) -> dict[str, int]:
    processes = 0
    for folder in Path("/proc").iterdir():
        try:
            processes += folder.name.isdecimal() and mark.encode() in (folder / "cmdline").read_bytes()
        except OSError:
            continue
    return {
        "processes": processes,
        "file descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "cgroups": sum(1 for _ in Path("/sys/fs/cgroup").rglob(f"ludus-{os.getpid()}-*")),
    }
