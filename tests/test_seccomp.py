"""The filter of system calls, run step by step as the kernel does."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.sandbox.errors import SandboxError
from ludus.sandbox.seccomp import _ABSENT, _AUDIT_ARCH, _DENIED, seccomp_filter

ALLOW, KILL = 0x7FFF0000, 0x80000000
MACHINES = ("x86_64", "aarch64")
JUDGED = {"x86_64": {56, 41, 16}, "aarch64": {220, 198, 29}}


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


@given(st.integers(0, 500))
def test_calls_by_another_convention_do_not_pass(number: int) -> None:
    assert verdict("x86_64", number, arch=0x40000003) == KILL  # those of 32-bit programs
    assert verdict("x86_64", 0x40000000 | number) == 0x50000 | errno.ENOSYS


def test_an_unknown_machine_is_told() -> None:
    with pytest.raises(SandboxError, match="riscv64"):
        seccomp_filter("riscv64")
