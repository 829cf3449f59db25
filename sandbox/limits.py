"""Limits: how much a program in a sandbox may use."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import SandboxError, did_you_mean

MIB = 1024 * 1024
LONGEST_S = 2_000_000.0
"""More than three weeks; what waits for events knows no longer times."""
LARGEST = 2**60
MOST_PROCESSES = 4_000_000
"""A little below what Linux can count."""


@dataclass(frozen=True)
class Limits:
    """What one run, or one command of a session, may use.

    wall_s: seconds by the clock. cpu_s: seconds of processor time of each process. memory_bytes: of all its processes
    together where the sandbox has cgroups, else of each. disk_bytes: of all its files together. file_bytes: the largest
    file. output_bytes: of standard output, and the same again of standard error; a program that writes more is ended.
    processes: at one time, threads included. open_files: descriptors of each process.
    """

    wall_s: float = 10.0
    cpu_s: float = 10.0
    memory_bytes: int = 512 * MIB
    disk_bytes: int = 64 * MIB
    file_bytes: int = 64 * MIB
    output_bytes: int = 1 * MIB
    processes: int = 64
    open_files: int = 256

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = not field.name.endswith("_s")
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise SandboxError(f"limits: {field.name} = {value!r:.80} must be a {'whole ' if whole else ''}number.")
            most = MOST_PROCESSES if field.name == "processes" else LARGEST if whole else LONGEST_S
            if not 0 < value <= most:  # not true of NaN
                said = f"{most}" if whole else f"{most:g}"
                raise SandboxError(f"limits: {field.name} = {value} must be above 0 and at most {said}.")
        if self.memory_bytes < 16 * MIB:
            raise SandboxError(
                f"limits: memory_bytes = {self.memory_bytes} is below 16 MiB; no program starts in that."
            )
        if self.disk_bytes < 4096:
            raise SandboxError(f"limits: disk_bytes = {self.disk_bytes} is below 4 KiB; no folder fits in that.")
        if self.open_files < 16:
            raise SandboxError(f"limits: open_files = {self.open_files} is below 16; no program starts with that.")

    def but(self, **changes: Any) -> Limits:
        """These limits with some changed. Raises SandboxError where a name is unknown."""
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise SandboxError(f"Unknown limit {name!r}.{did_you_mean(name, known)}")
        return replace(self, **changes)
