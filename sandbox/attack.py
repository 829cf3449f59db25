"""Attack: a program of `check_sandbox` that tries one way out of a sandbox, or to take more than it may.

Invariant: an attack that succeeds says ESCAPED and does no harm. What it takes is counted and bounded by itself,
network attempts go to listeners that the check opened on the host's loopback, and files of the host are only opened, or
made and removed again.
"""

from __future__ import annotations

from dataclasses import dataclass

from .result import Status

PRELUDE = """
import ctypes, errno, json, mmap, os, platform, resource, signal, socket, stat, struct, sys, threading, time
host = json.load(open(0)) if not sys.stdin.closed else {}
limits = host["limits"]
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NUMBERS = {"add_key": (248, 217), "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "clone3": (435, 435), "clone": (56, 220),
    "open_by_handle_at": (304, 265), "fsopen": (430, 430), "kexec_load": (246, 104), "reboot": (169, 142),
    "init_module": (175, 105), "pidfd_getfd": (438, 438), "process_vm_readv": (310, 270), "acct": (163, 89),
    "swapon": (167, 224), "ptrace": (101, 117), "unshare": (272, 97), "open_tree": (428, 428), "syslog": (103, 116)}
def syscall(name, *args):
    number = NUMBERS[name][0 if platform.machine() == "x86_64" else 1]
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
def escaped(what):
    print("ESCAPED:", what, flush=True)
def reads(path):
    try:
        return open(path, "rb").read(100_000)
    except OSError:
        return b""
def opens_for_writing(path):
    try:
        os.close(os.open(path, os.O_WRONLY))
        return True
    except OSError:
        return False
"""


@dataclass(frozen=True)
class Attack:
    """name: what is tried. program: Python, run after PRELUDE; it reads what it needs to know of the host from `host`.
    ends: how it may end. idle: it mostly waits for the end of its time and takes no processor, so that a check
    may run it beside others that do.
    """

    name: str
    program: str
    ends: tuple[Status, ...] = (Status.EXITED,)
    idle: bool = False


ANY = (Status.EXITED, Status.KILLED, Status.MEMORY, Status.TIMEOUT, Status.OUTPUT)
OVER = (Status.TIMEOUT,)
DEAD = (Status.EXITED, Status.KILLED, Status.TIMEOUT)
FULL = (Status.EXITED, Status.KILLED, Status.MEMORY)
