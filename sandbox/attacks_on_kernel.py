"""Attacks that try to rise: more rights, other namespaces, parts of the kernel that no program needs."""

from __future__ import annotations

from .attack import Attack

RISING = (
    Attack(
        "capabilities",
        """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    if int(status[name], 16):
        escaped(f"{name} = {status[name].strip()}")
if int(status["NoNewPrivs"]) != 1:
    escaped("new privileges are possible")
if os.geteuid() == 0:
    escaped("it is root")
""",
    ),
    Attack("mounting", "if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0: escaped('a mount')"),
    Attack("mounting by descriptors", "if syscall('fsopen', b'tmpfs', 0) >= 0: escaped('a file system')"),
    Attack("a copy of the mounts", "if syscall('open_tree', -100, b'/', 1) >= 0: escaped('a copy of the root')"),
    Attack("another root", "if libc.chroot(b'.') == 0: escaped('chroot')"),
    Attack("a user namespace", "if syscall('unshare', 0x10000000) == 0: escaped('unshare')"),
    Attack(
        "a user namespace for a child",
        """
pid = syscall("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
if pid == 0:
    os._exit(0)
if pid > 0:
    escaped("clone")
""",
    ),
    Attack(
        "a user namespace by the newer call",
        """
if syscall("clone3", 0, 0) < 0 and ctypes.get_errno() != errno.ENOSYS:
    escaped("clone3, whose flags no filter can read")
""",
    ),
    Attack(
        "the namespaces of others",
        """
for kind in ("mnt", "net", "pid", "user"):
    try:
        if libc.setns(os.open(f"/proc/1/ns/{kind}", os.O_RDONLY), 0) == 0:
            escaped(kind)
    except OSError:
        pass
""",
    ),
    Attack("watching another process", "if syscall('ptrace', 0, 0, 0, 0) == 0: escaped('ptrace')"),
    Attack(
        "memory of another process",
        """
local = ctypes.create_string_buffer(8)
vector = struct.pack("=QQ", ctypes.addressof(local), 8)
if syscall("process_vm_readv", os.getpid(), vector, 1, vector, 1, 0) >= 0:
    escaped("process_vm_readv")
""",
    ),
    Attack(
        "descriptors of another process",
        "if syscall('pidfd_getfd', os.pidfd_open(os.getpid()), 0, 0) >= 0: escaped('pidfd_getfd')",
    ),
    Attack("the kernel's keyring", "if syscall('add_key', b'user', b'ludus', b'x', 1, -2) >= 0: escaped('add_key')"),
    Attack(
        "programs in the kernel",
        "if syscall('bpf', 0, bytes(64), 64) >= 0 or ctypes.get_errno() != errno.EPERM: escaped('bpf')",
    ),
    Attack(
        "modules of the kernel",
        "if syscall('init_module', bytes(1), 1, b'') == 0 or ctypes.get_errno() != errno.EPERM: escaped('init_module')",
    ),
    Attack(
        "another kernel",
        "if syscall('kexec_load', 0, 0, 0, 0) == 0 or ctypes.get_errno() != errno.EPERM: escaped('kexec')",
    ),
    Attack(
        "counters of the processor",
        """
event = struct.pack("=IIQQQQQ", 1, 112, 0, 0, 0, 0, 1 | 1 << 5 | 1 << 6) + bytes(64)
if syscall("perf_event_open", event, 0, -1, -1, 0) >= 0:
    escaped("perf_event_open")
""",
    ),
    Attack("faults in user space", "if syscall('userfaultfd', 1) >= 0: escaped('userfaultfd')"),
    Attack(
        "rings that filters do not see",
        "if syscall('io_uring_setup', 1, ctypes.create_string_buffer(256)) >= 0: escaped('io_uring')",
    ),
    Attack(
        "files by their handle",
        """
handle = struct.pack("=IiQQ", 8, 1, 0, 0)
if syscall("open_by_handle_at", -100, handle, 0) >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
    escaped("open_by_handle_at")
""",
    ),
    Attack(
        "the name of the machine",
        """
same = socket.gethostname().encode()
if libc.sethostname(same, len(same)) == 0:
    escaped("sethostname")
""",
    ),
    Attack(
        "the clock",
        """
same = time.time_ns()
if libc.clock_settime(0, struct.pack("=qq", same // 10**9, same % 10**9)) == 0:
    escaped("the time")
""",
    ),
    Attack("accounting", "if syscall('acct', 0) == 0: escaped('acct')"),
    Attack(
        "typing into the terminal",
        """
import fcntl
for fd in (0, 1, 2):
    try:
        fcntl.ioctl(fd, 0x5412, b"x")
        escaped("TIOCSTI")
    except OSError as error:
        if error.errno != errno.EPERM:
            escaped(f"TIOCSTI reaches the terminal's code ({error})")
""",
    ),
)
