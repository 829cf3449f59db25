"""How a program ended, from what was seen of it; the same words on every back end."""

from __future__ import annotations

import signal

from .limits import Limits
from .result import Status, Usage
from .supervise import Ending

_LAST_SIGNAL = 64
"""Of Linux, where programs run, whatever system asks."""


def outcome(ending: Ending, exit_code: int | None, ran_out: bool, limits: Limits, usage: Usage) -> tuple[Status, str]:
    """How a program ended; its exit code is only missing where the sandbox has ended it."""
    if ending is Ending.CANCELLED:
        return Status.FAILED, "The run was cancelled."
    if ending is Ending.TIMEOUT:
        return Status.TIMEOUT, f"The program was ended after {limits.wall_s:g} s."
    if ending is Ending.OUTPUT:
        return Status.OUTPUT, f"The program wrote more than {limits.output_bytes} bytes."
    if ran_out:
        return Status.MEMORY, f"The program took more than {limits.memory_bytes} bytes of memory."
    code = exit_code or 0
    used_s = limits.cpu_s if usage.cpu_s is None else usage.cpu_s
    # The kernel counts for its limit in ticks, and tells more exactly what was used, which may be less.
    if (code == 128 + signal.SIGXCPU and used_s > 0.5 * limits.cpu_s) or (
        code == 128 + signal.SIGKILL and used_s > limits.cpu_s
    ):
        return Status.TIMEOUT, f"The program used more than {limits.cpu_s:g} s of processor time."
    if 128 < code <= 128 + _LAST_SIGNAL:
        return Status.KILLED, f"Signal {code - 128} ended the program."
    return Status.EXITED, ""
