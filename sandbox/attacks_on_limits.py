"""Attacks that take more than a program may, that stay behind it, or that confuse who watches it."""

from __future__ import annotations

from .attack import ANY, DEAD, FULL, OVER, Attack
from .result import Status

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
        ANY,
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
        ANY,
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
        ANY,
    ),
    Attack(
        "memory of its own",
        """
kept = []
for _ in range(limits["memory_bytes"] // 2**20 + 64):
    kept.append(bytearray(b"x") * 2**20)
escaped(f"{len(kept)} MiB")
""",
        FULL,
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
        FULL,
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
        ANY,
        idle=True,
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
        FULL,
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
        FULL,
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
    Attack("endless sleep", "time.sleep(1000)", OVER, idle=True),
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
        OVER,
        idle=True,
    ),
    Attack("stops itself", "os.kill(os.getpid(), signal.SIGSTOP)", DEAD, idle=True),
    Attack("closes its descriptors and goes on", "os.closerange(0, 256)\ntime.sleep(1000)", OVER, idle=True),
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
        DEAD,
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
        DEAD,
    ),
    Attack(
        "child that keeps the output open",
        """
if os.fork() == 0:
    time.sleep(1000)
print("the parent is done", flush=True)
""",
        DEAD,
    ),
    Attack("files for the next run", "open('left', 'w').write('x')\nopen('/tmp/left', 'w').write('x')"),
    Attack("names in odd bytes", "open(b'\\xff\\n\\x1b[31m', 'w').write('x')\nos.makedirs('a/' * 100)"),
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
