"""The attack programs of `check_sandbox`: each tries one way out of a sandbox, or to take more than it may.

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
    ends: how it may end.
    """

    name: str
    program: str
    ends: tuple[Status, ...] = (Status.EXITED,)


_ANY = (Status.EXITED, Status.KILLED, Status.MEMORY, Status.TIMEOUT, Status.OUTPUT)
_OVER = (Status.TIMEOUT,)
_DEAD = (Status.EXITED, Status.KILLED, Status.TIMEOUT)
_FULL = (Status.EXITED, Status.KILLED, Status.MEMORY)

TAKING = (
    Attack(
        "fork bomb",
        """
count = 0
try:
    for _ in range(limits["processes"] + 200):
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError:
    pass
if count > limits["processes"]:
    escaped(f"{count} processes at once")
""",
        _ANY,
    ),
    Attack(
        "thread bomb",
        """
threading.stack_size(65536)
count = 0
try:
    for _ in range(limits["processes"] + 200):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        count += 1
except RuntimeError:
    pass
if count > limits["processes"]:
    escaped(f"{count} threads at once")
os._exit(0)
""",
        _ANY,
    ),
    Attack(
        "zombie flood",
        """
count = 0
try:
    for _ in range(limits["processes"] + 200):
        if os.fork() == 0:
            os._exit(0)
        count += 1
except OSError:
    pass
if count > limits["processes"]:
    escaped(f"{count} processes that nobody waits for")
""",
        _ANY,
    ),
    Attack(
        "memory of its own",
        """
kept = []
for _ in range(limits["memory_bytes"] // 2**20 + 64):
    kept.append(bytearray(b"x") * 2**20)
escaped(f"{len(kept)} MiB")
""",
        _FULL,
    ),
    Attack(
        "memory shared with nobody",
        """
kept = []
try:
    for _ in range(limits["memory_bytes"] // 2**20 + 64):
        kept.append(mmap.mmap(-1, 2**20))
        kept[-1].write(b"x" * 2**20)
    escaped(f"{len(kept)} MiB")
except OSError:
    pass
""",
        _FULL,
    ),
    Attack(
        "memory of many processes",
        """
share = limits["memory_bytes"] * 3 // 4
ends = [os.pipe() for _ in range(3)]
for read_end, write_end in ends:
    if os.fork() == 0:
        kept = bytearray(b"x") * share
        os.write(write_end, b"x")
        time.sleep(60)
for read_end, write_end in ends:
    os.close(write_end)
if all(os.read(read_end, 1) for read_end, _ in ends):
    escaped("several processes take more than the limit together")
""",
        _ANY,
    ),
    Attack(
        "full disk",
        """
block = b"x" * 2**20
written = 0
try:
    for number in range(8):
        with open(f"full{number}", "wb") as file:
            for _ in range(limits["file_bytes"] // 2**20):
                file.write(block)
                file.flush()
                written += 2**20
except OSError:
    pass
if written > limits["disk_bytes"]:
    escaped(f"{written} bytes")
""",
        _FULL,
    ),
    Attack(
        "full shared memory folder",
        """
written = 0
try:
    for number in range(8):
        with open(f"/dev/shm/full{number}", "wb") as file:
            for _ in range(limits["file_bytes"] // 2**20):
                file.write(b"x" * 2**20)
                file.flush()
                written += 2**20
except OSError:
    pass
if written > limits["disk_bytes"]:
    escaped(f"{written} bytes in /dev/shm")
""",
        _FULL,
    ),
    Attack(
        "huge file with nothing in it",
        """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    os.truncate(os.open("sparse", os.O_CREAT | os.O_RDWR), limits["file_bytes"] * 16)
    escaped("a file larger than the limit")
except OSError:
    pass
""",
    ),
    Attack(
        "all descriptors",
        """
kept = []
try:
    for _ in range(limits["open_files"] + 200):
        kept.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
if len(kept) > limits["open_files"]:
    escaped(f"{len(kept)} descriptors")
""",
    ),
    Attack(
        "endless output",
        "while True:\n    os.write(1, b'x' * 65536)",
        (Status.OUTPUT,),
    ),
    Attack(
        "endless complaints",
        "while True:\n    os.write(2, b'x' * 65536)",
        (Status.OUTPUT,),
    ),
    Attack("endless work", "while True:\n    pass", (Status.TIMEOUT, Status.KILLED)),
    Attack("endless sleep", "time.sleep(1000)", _OVER),
    Attack(
        "deaf to signals",
        """
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
time.sleep(1000)
""",
        _OVER,
    ),
    Attack("stops itself", "os.kill(os.getpid(), signal.SIGSTOP)", _DEAD),
    Attack("closes its descriptors and goes on", "os.closerange(0, 256)\ntime.sleep(1000)", _OVER),
    Attack(
        "higher limits",
        """
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):
    soft, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY:
        escaped(f"no limit of kind {kind}")
    try:
        resource.setrlimit(kind, (hard + 1000, hard + 1000))
        escaped(f"a higher limit of kind {kind}")
    except (OSError, ValueError):
        pass
""",
    ),
    Attack("dump of its memory", "if resource.getrlimit(resource.RLIMIT_CORE)[1]: escaped('core dumps')"),
    Attack(
        "priority over all others",
        """
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    escaped("real-time priority")
except OSError:
    pass
try:
    os.nice(-10)
    escaped("a higher priority")
except OSError:
    pass
""",
    ),
)

STAYING = (
    Attack(
        "daemon",
        """
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 256)
    time.sleep(1000)
""",
        _DEAD,
    ),
    Attack(
        "daemon of a daemon",
        """
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setpgid(0, 0)
        os.closerange(0, 256)
        time.sleep(1000)
    os._exit(0)
""",
        _DEAD,
    ),
    Attack(
        "child that keeps the output open",
        """
if os.fork() == 0:
    time.sleep(1000)
print("the parent is done", flush=True)
""",
        _DEAD,
    ),
    Attack("files for the next run", "open('left', 'w').write('x')\nopen('/tmp/left', 'w').write('x')"),
    Attack("names in odd bytes", "open(b'\\xff\\n\\x1b[31m', 'w').write('x')\nos.makedirs('a/' * 100)"),
)

READING = (
    Attack(
        "secret file of the host",
        """
for path in (host["secret"], "/proc/self/root" + host["secret"], "/proc/1/root" + host["secret"],
        "../" * 20 + host["secret"], "/proc/self/cwd/.." + host["secret"]):
    if host["token"].encode() in reads(path):
        escaped(path)
""",
    ),
    Attack(
        "secret file through a symbolic link",
        """
os.symlink(host["secret"], "link")
if host["token"].encode() in reads("link"):
    escaped("link")
""",
    ),
    Attack(
        "passwords and keys of the host",
        """
for path in ("/etc/shadow", "/etc/gshadow", "/root/.bash_history", "/root/.ssh/id_rsa", "/etc/ssh/ssh_host_rsa_key"):
    if reads(path):
        escaped(path)
for folder in ("/var/lib", "/var/log", "/etc/ssh", "/boot", "/srv"):
    try:
        if os.listdir(folder):
            escaped(folder)
    except OSError:
        pass
""",
    ),
    Attack(
        "environment of the host",
        """
if host["token"] in os.environ.get("LUDUS_CHECK_SECRET", ""):
    escaped("its own environment")
for pid in filter(str.isdigit, os.listdir("/proc")):
    if b"LUDUS_CHECK_SECRET" in reads(f"/proc/{pid}/environ"):
        escaped(f"the environment of process {pid}")
""",
    ),
    Attack(
        "processes of the host",
        """
for pid in filter(str.isdigit, os.listdir("/proc")):
    if host["sentinel_mark"].encode() in reads(f"/proc/{pid}/cmdline"):
        escaped(f"process {pid}")
""",
    ),
    Attack("memory of the first process", "if opens_for_writing('/proc/1/mem'): escaped('/proc/1/mem')"),
    Attack(
        "shared memory of the host",
        """
if libc.shmget(host["shm_key"], 0, 0) >= 0:
    escaped("a segment of System V")
""",
    ),
    Attack(
        "devices",
        """
for name in ("sda", "vda", "nvme0n1", "mem", "kmsg", "port", "kvm", "fuse", "net/tun", "loop-control"):
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(f"/dev/{name}", flags))
            escaped(f"/dev/{name}")
        except OSError:
            pass
""",
    ),
    Attack(
        "kernel messages",
        """
buffer = ctypes.create_string_buffer(1000)
if syscall("syslog", 3, buffer, 1000) > 0:
    escaped("the kernel's log")
""",
    ),
)

WRITING = (
    Attack(
        "system folders",
        """
for folder in ("/usr", "/usr/bin", "/usr/lib", "/etc", "/bin", "/lib"):
    path = f"{folder}/{host['token']}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.unlink(path)
        escaped(folder)
    except OSError:
        pass
""",
    ),
    Attack(
        "the root folder and /dev",
        """
for path in ("/left", "/dev/left", "/proc/left"):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        escaped(path)
    except OSError:
        pass
""",
    ),
    Attack(
        "out of its folder by ..",
        """
for path in ("../" * 20 + host["folder"] + "/made", host["folder"] + "/made"):
    try:
        open(path, "w").write("x")
        escaped(path)
    except OSError:
        pass
""",
    ),
    Attack(
        "through a symbolic link",
        """
os.symlink(host["folder"], "folder")
try:
    open("folder/made", "w").write("x")
    escaped("a file of the host")
except OSError:
    pass
""",
    ),
    Attack(
        "settings of the kernel",
        """
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/swappiness", "/proc/sysrq-trigger",
        "/proc/sys/kernel/hostname", "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper"):
    if opens_for_writing(path):
        escaped(path)
""",
    ),
    Attack(
        "cgroups",
        """
for folder, _, files in os.walk("/sys/fs/cgroup"):
    for name in files:
        if opens_for_writing(f"{folder}/{name}"):
            escaped(f"{folder}/{name}")
            sys.exit()
""",
    ),
    Attack(
        "programs with another user's rights",
        """
for folder in (".", "/tmp", "/dev/shm"):
    if not os.statvfs(folder).f_flag & os.ST_NOSUID:
        escaped(f"{folder} is mounted with suid")
open("tool", "w").write("x")
try:
    os.chown("tool", 0, 0)
    os.chmod("tool", 0o4755)
    escaped("a file of root with suid")
except OSError:
    pass
""",
    ),
    Attack(
        "device files of its own",
        """
for kind, number in ((stat.S_IFBLK, os.makedev(8, 0)), (stat.S_IFCHR, os.makedev(1, 1))):
    try:
        os.mknod("device", kind | 0o666, number)
        os.close(os.open("device", os.O_RDONLY))
        escaped("a device")
    except OSError:
        pass
""",
    ),
)

REACHING = (
    Attack(
        "TCP to the host",
        """
try:
    socket.create_connection(("127.0.0.1", host["tcp_port"]), timeout=1).send(b"x")
    escaped("a connection")
except OSError:
    pass
""",
    ),
    Attack(
        "UDP to the host",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', host['udp_port']))",
    ),
    Attack(
        "TCP over IPv6 to the host",
        """
try:
    socket.create_connection(("::1", host["tcp6_port"]), timeout=1).send(b"x")
    escaped("a connection")
except OSError:
    pass
""",
    ),
    Attack(
        "interfaces of the network",
        """
for line in open("/proc/net/dev"):
    name, colon, _ = line.partition(":")
    if colon and name.strip() not in ("lo", "sit0", "ip6tnl0", "tunl0", "ip_vti0", "ip6_vti0", "gre0", "gretap0"):
        escaped(f"the interface {name.strip()}")
""",
    ),
    Attack(
        "raw sockets",
        """
for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW)):
    try:
        socket.socket(family, kind, socket.IPPROTO_ICMP)
        escaped("a raw socket")
    except OSError:
        pass
""",
    ),
    Attack(
        "sockets that no network namespace holds back",
        """
for family in (40, 16, 38):  # AF_VSOCK, AF_NETLINK, AF_ALG
    try:
        socket.socket(family, socket.SOCK_STREAM if family == 40 else socket.SOCK_RAW if family == 16 else 5)
        escaped(f"a socket of family {family}")
    except OSError:
        pass
""",
    ),
    Attack(
        "socket file of the host",
        """
try:
    socket.socket(socket.AF_UNIX).connect(host["unix_path"])
    escaped("a connection")
except OSError:
    pass
""",
    ),
    Attack(
        "socket of the host without a file",
        """
try:
    socket.socket(socket.AF_UNIX).connect("\\0" + host["abstract"])
    escaped("a connection")
except OSError:
    pass
""",
    ),
    Attack(
        "socket of Docker",
        """
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        escaped(path)
    except OSError:
        pass
""",
    ),
    Attack(
        "ending a process of the host",
        """
try:
    os.kill(host["sentinel"], signal.SIGKILL)
except OSError:
    pass
""",
        _DEAD,
    ),
    Attack(
        "ending everything",
        """
try:
    os.kill(-1, signal.SIGKILL)
except ProcessLookupError:
    pass
""",
        _DEAD,
    ),
    Attack(
        "ending what started it",
        """
for pid in (os.getppid(), 1):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
""",
        _DEAD,
    ),
)

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

CONFUSING = (
    Attack("huge arguments", "os.execv(sys.executable, [sys.executable, '-c', 'pass', *['x' * 100_000] * 15])"),
    Attack(
        "bytes that are no text", "os.write(1, bytes(range(256)) * 100)\nos.write(2, bytes(range(255, -1, -1)) * 100)"
    ),
    Attack("a fault of its memory", "ctypes.string_at(0)", (Status.KILLED,)),
    Attack("an end by its own signal", "os.kill(os.getpid(), signal.SIGKILL)", (Status.KILLED,)),
    Attack(
        "a report in the sandbox's own words",
        """
print('{"exit-code": 0}\\n{"child-pid": 1}', flush=True)
for fd in range(3, 256):
    try:
        os.write(fd, b'{"exit-code": 0}\\n')
        escaped(f"descriptor {fd} of the sandbox")
    except OSError:
        pass
sys.exit(7)
""",
    ),
)

ATTACKS = (*TAKING, *STAYING, *READING, *WRITING, *REACHING, *RISING, *CONFUSING)
