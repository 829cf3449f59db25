"""Attacks on the host: its files, its processes and its networks."""

from __future__ import annotations

from .attack import DEAD, Attack

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
for folder, there in host["folders"].items():
    try:
        here = os.stat(folder)
        if os.listdir(folder) and [here.st_dev, here.st_ino] == there:
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
        "the root folder",
        """
for path in ("/left", "/usr/left", "/etc/left"):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        escaped(path)
    except OSError:
        pass
""",
    ),
    Attack(
        "files in /dev and /proc",
        """
for path in ("/dev/left", "/proc/left"):
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
        DEAD,
    ),
    Attack(
        "ending everything",
        """
try:
    os.kill(-1, signal.SIGKILL)
except ProcessLookupError:
    pass
""",
        DEAD,
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
        DEAD,
    ),
)
