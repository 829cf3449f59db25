"""Landlock: the calling thread, and what it starts, can no longer reach processes outside by signals and sockets.

Of Landlock only these scopes are used, as a second line behind the namespaces. With its rules for files a program may
not mount, and bubblewrap has to; and its rules for TCP would also forbid a program to talk to itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
"""The same on every machine."""
_VERSION = 1
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2
_PR_SET_NO_NEW_PRIVS = 38
_SCOPES_ABI = 6


def landlock_abi() -> int:
    """The version of Landlock that the kernel has; 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(_syscall(_CREATE_RULESET, None, 0, _VERSION), 0)


def restrict_this_thread() -> bool:
    """Put this thread, and every process that it will start, under Landlock and no_new_privs, for good.

    Returns whether the kernel could; an older one leaves the thread as it was. Source: Linux,
    Documentation/userspace-api/landlock.rst.
    """
    if landlock_abi() < _SCOPES_ABI:
        return False
    attributes = struct.pack("=QQQ", 0, 0, _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS)
    ruleset = _syscall(_CREATE_RULESET, ctypes.c_char_p(attributes), len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return _syscall(_RESTRICT_SELF, ruleset, 0, 0) == 0
    finally:
        with contextlib.suppress(OSError):
            os.close(ruleset)


def _syscall(number: int, *args: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args)))
