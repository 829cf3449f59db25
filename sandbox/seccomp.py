"""The system calls that a sandboxed program may not make, as a filter for the kernel.

Invariant: a denied call returns an error and never reaches the code behind it. The filter is an addition: namespaces
and dropped capabilities refuse most of these calls, too, and the filter keeps the program away from kernel code that
has let others out. io_uring and clone3 are said not to exist, since their arguments lie where no filter can read them,
and inotify, since the host counts its instances for each user; programs then use their predecessors, or look again.
"""

from __future__ import annotations

import errno
import platform
import struct

from .errors import SandboxError

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
"""Numbers from here on are those of x86's x32 calls, which would pass by a list of numbers."""

# Names with their numbers on x86_64 and aarch64; None where there is no such call.
_DENIED: dict[str, tuple[int, int | None]] = {
    **{"acct": (163, 89), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "clock_settime": (227, 112)},
    **{"settimeofday": (164, 170), "sethostname": (170, 161), "setdomainname": (171, 162), "reboot": (169, 142)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280)},
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "setns": (308, 268)},
    **{"unshare": (272, 97), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430)},
    **{"fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442)},
    **{"init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106)},
    **{"kexec_load": (246, 104), "kexec_file_load": (320, 294), "swapon": (167, 224), "swapoff": (168, 225)},
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
    **{"pidfd_getfd": (438, 438), "process_madvise": (440, 440), "perf_event_open": (298, 241)},
    **{"name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262)},
    **{"userfaultfd": (323, 282), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116)},
    **{"lookup_dcookie": (212, 18), "move_pages": (279, 239), "migrate_pages": (256, 238), "vhangup": (153, 58)},
    **{"ioperm": (173, None), "iopl": (172, None), "nfsservctl": (180, 42)},
}
_ABSENT: dict[str, tuple[int, int | None]] = {
    **{"clone3": (435, 435), "io_uring_setup": (425, 425)},
    **{"io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    **{"inotify_init": (253, None), "inotify_init1": (294, 26)},
}
_ABOUT_OTHERS = {
    **{"prlimit64": (302, 261, 0), "sched_setparam": (142, 118, 0), "sched_setscheduler": (144, 119, 0)},
    **{"sched_setaffinity": (203, 122, 0), "sched_setattr": (314, 274, 0)},
    **{"setpriority": (141, 140, 1), "ioprio_set": (251, 30, 1)},
}
"""Numbers, and which argument is the process: refused for process 1, which no namespace of users guards from others of
the same user."""
_ONLY_PROCESSES = {"setpriority": (141, 140, 0), "ioprio_set": (251, 30, 1)}
"""Numbers, and the first argument that says that the second is a process: a group of them, or all of a user, may hold
process 1, too."""
_CLONE, _SOCKET, _IOCTL, _FCNTL = (56, 220), (41, 198), (16, 29), (72, 25)
_CLONE_NEW = 0x7E020000
"""The flags of clone that make namespaces."""
_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6: what programs use among themselves. AF_VSOCK, AF_NETLINK and the rest are not all held
back by a network namespace."""
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX type into the terminal."""

_SET_LEASE = 1024
"""F_SETLEASE on a file of the host that may be read would hold up whoever opens it there."""

_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _refuse(error: int) -> bytes:
    return _step(_RETURN, _ERRNO | error)


def seccomp_filter(machine: str | None = None) -> bytes:
    """The filter as the kernel reads it (struct sock_filter[]), for this or another machine ("x86_64", "aarch64").

    Source: Linux, Documentation/userspace-api/seccomp_filter.rst. Raises SandboxError where the machine is unknown.
    """
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCH:
        raise SandboxError(f"There is no list of system calls for {machine}; use sandbox 'docker' on this machine.")
    column = list(_AUDIT_ARCH).index(machine)
    program = [_step(_LOAD, _ARCH), _step(_EQUAL, _AUDIT_ARCH[machine], 1, 0), _step(_RETURN, _KILL)]
    program += [_step(_LOAD, _NR)]
    if machine == "x86_64":
        program += [_step(_AT_LEAST, _X32, 0, 1), _refuse(errno.ENOSYS)]
    for numbers, error in ((_DENIED, errno.EPERM), (_ABSENT, errno.ENOSYS)):
        for pair in numbers.values():
            if pair[column] is not None:
                program += [_step(_EQUAL, pair[column] or 0, 0, 1), _refuse(error)]
    # Calls that are judged by an argument: the jump passes by what follows for every other call.
    program += [_step(_EQUAL, _CLONE[column], 0, 5), _step(_LOAD, _ARG0), _step(_AND, _CLONE_NEW)]
    program += [_step(_EQUAL, 0, 1, 0), _refuse(errno.EPERM), _step(_RETURN, _ALLOW)]
    families = [_step(_EQUAL, family, len(_FAMILIES) - place, 0) for place, family in enumerate(_FAMILIES)]
    program += [_step(_EQUAL, _SOCKET[column], 0, 3 + len(families)), _step(_LOAD, _ARG0), *families]
    program += [_refuse(errno.EAFNOSUPPORT), _step(_RETURN, _ALLOW)]
    for *row, kind in _ONLY_PROCESSES.values():
        program += [_step(_EQUAL, row[column], 0, 3), _step(_LOAD, _ARG0), _step(_EQUAL, kind, 1, 0)]
        program += [_refuse(errno.EPERM), _step(_LOAD, _NR)]
    for *row, place in _ABOUT_OTHERS.values():
        program += [_step(_EQUAL, row[column], 0, 4), _step(_LOAD, (_ARG0, _ARG1)[place]), _step(_EQUAL, 1, 0, 1)]
        program += [_refuse(errno.EPERM), _step(_RETURN, _ALLOW)]
    program += [_step(_EQUAL, _FCNTL[column], 0, 4), _step(_LOAD, _ARG1), _step(_EQUAL, _SET_LEASE, 0, 1)]
    program += [_refuse(errno.EPERM), _step(_RETURN, _ALLOW)]
    program += [_step(_EQUAL, _IOCTL[column], 0, 4), _step(_LOAD, _ARG1)]
    program += [_step(_EQUAL, _TERMINAL_INPUT[0], 1, 0), _step(_EQUAL, _TERMINAL_INPUT[1], 0, 1)]
    program += [_refuse(errno.EPERM), _step(_RETURN, _ALLOW)]
    return b"".join(program)
