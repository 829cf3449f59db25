"""When a process was started, which with its number names it for good: numbers are given again."""

from __future__ import annotations

import contextlib
from pathlib import Path


def start_time(pid: int | str) -> str:
    """In the kernel's ticks; "" where the process is not there, or where the system does not tell."""
    with contextlib.suppress(OSError, IndexError):
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[19]
    return ""
