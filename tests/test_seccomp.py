"""The filter of system calls, run step by step as the kernel does."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.sandbox.errors import SandboxError
from ludus.sandbox.seccomp import _ABSENT, _AUDIT_ARCH, _DENIED, seccomp_filter

ALLOW, KILL = 0x7FFF0000, 0x80000000
MACHINES = ("x86_64", "aarch64")
JUDGED = {"x86_64": {56, 41, 16, 251}, "aarch64": {220, 198, 29, 30}}
LARGE = st.integers(0, 2**32 - 1)


def verdict(machine: str, number: int, *args: int, arch: int | None = None) -> int:
    """What the filter returns for a call; a small interpreter of classic BPF."""
    data = struct.pack("=IIQ6Q", number, arch or _AUDIT_ARCH[machine], 0, *(*args, *[0] * (6 - len(args))))
    program = list(struct.iter_unpack("=HBBI", seccomp_filter(machine)))
    place = value = 0
    while True:
        code, if_true, if_false, operand = program[place]
        place += 1
        if code == 0x20:
            value = struct.unpack_from("=I", data, operand)[0]
        elif code == 0x54:
            value &= operand
        elif code == 0x06:
            return operand
        else:
            assert code in (0x15, 0x35)
            place += if_true if (value == operand if code == 0x15 else value >= operand) else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_every_denied_call_returns_its_error_and_no_other_does(machine: str) -> None:
    column = MACHINES.index(machine)
    denied = {pair[column] for pair in _DENIED.values()} - {None}
    absent = {pair[column] for pair in _ABSENT.values()}
    for number in set(range(600)) - JUDGED[machine]:
        wanted = errno.EPERM if number in denied else errno.ENOSYS if number in absent else None
        assert verdict(machine, number) == (ALLOW if wanted is None else 0x50000 | wanted), number


@given(st.sampled_from(MACHINES), st.integers(0, 2**64 - 1))
def test_clone_makes_processes_and_threads_and_no_namespaces(machine: str, flags: int) -> None:
    made = verdict(machine, {"x86_64": 56, "aarch64": 220}[machine], flags)
    assert (made == ALLOW) is not bool(flags & 0x7E020000)


@given(st.sampled_from(MACHINES), st.integers(0, 50))
def test_only_unix_and_internet_sockets_are_made(machine: str, family: int) -> None:
    made = verdict(machine, {"x86_64": 41, "aarch64": 198}[machine], family, 1, 0)
    assert (made == ALLOW) is (family in (1, 2, 10))


@given(st.sampled_from(MACHINES), st.integers(0, 2**32 - 1) | st.sampled_from([0x5412, 0x541C]))
def test_nothing_is_typed_into_a_terminal(machine: str, request: int) -> None:
    asked = verdict(machine, {"x86_64": 16, "aarch64": 29}[machine], 0, request)
    assert (asked == ALLOW) is (request not in (0x5412, 0x541C))


@given(st.sampled_from(MACHINES), LARGE | st.integers(0, 4), LARGE | st.integers(0, 2))
def test_only_single_processes_but_the_first_are_given_another_turn(machine: str, kind: int, who: int) -> None:
    """PRIO_PROCESS is 0 and IOPRIO_WHO_PROCESS 1; groups and users may hold process 1."""
    for numbers, process in (((141, 140), 0), ((251, 30), 1)):
        made = verdict(machine, numbers[MACHINES.index(machine)], kind, who)
        assert (made == ALLOW) is (kind == process and who != 1)


@given(st.sampled_from(MACHINES), LARGE | st.integers(1020, 1040) | st.just(1024))
def test_no_lease_of_a_file_is_taken_and_other_work_on_descriptors_goes_on(machine: str, command: int) -> None:
    asked = verdict(machine, {"x86_64": 72, "aarch64": 25}[machine], 3, command)
    assert (asked == ALLOW) is (command != 1024)


@pytest.mark.bubblewrap
def test_what_the_filter_refuses_is_refused_to_programs(bubblewrap: Bubblewrap) -> None:
    program = """
import ctypes, fcntl, os
libc = ctypes.CDLL(None, use_errno=True)
os.close(os.open("own", os.O_CREAT))
own = open("own")
fcntl.fcntl(own, fcntl.F_SETFD, 0)
for change in (
    lambda: os.setpriority(os.PRIO_USER, 0, 19),
    lambda: os.setpriority(os.PRIO_PGRP, 0, 19),
    lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
    lambda: fcntl.fcntl(own, fcntl.F_SETLEASE, fcntl.F_WRLCK),
):
    try:
        print("changed", change())
    except PermissionError:
        pass
if libc.inotify_init() >= 0 or libc.inotify_init1(0) >= 0:
    print("inotify")
os.setpriority(os.PRIO_PROCESS, 0, 5)
print(os.getpriority(os.PRIO_PROCESS, 0))
"""
    result = bubblewrap.run(["python3", "-c", program])
    assert (result.stdout, result.stderr) == ("5\n", "")
    tail = "echo on > log; (sleep 0.3; echo off >> log) & timeout 3 tail -n 2 -s 0.1 -f log | head -n 2"
    assert bubblewrap.run(["sh", "-c", tail]).stdout == "on\noff\n"


@given(st.integers(0, 500))
def test_calls_by_another_convention_do_not_pass(number: int) -> None:
    assert verdict("x86_64", number, arch=0x40000003) == KILL  # those of 32-bit programs
    assert verdict("x86_64", 0x40000000 | number) == 0x50000 | errno.ENOSYS


def test_an_unknown_machine_is_told() -> None:
    with pytest.raises(SandboxError, match="riscv64"):
        seccomp_filter("riscv64")
