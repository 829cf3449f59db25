"""Runs as the first process inside a sandbox that is kept for a session: starts programs, passes on what they read and
write, and reads and writes files.

One line of JSON asks, one or more answer. It has no more rights than the programs, which cannot reach it: as the first
process of its namespace no signal of theirs ends it, and nobody may look into it. It never waits for anyone: what it
cannot pass on yet is kept, and while that is much it reads no more from programs, but always from who asks.
"""

import base64
import contextlib
import ctypes
import errno
import json
import os
import resource
import selectors
import signal
import stat
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

CHUNK = 1 << 16
NAMES = 1 << 20  # characters of all paths in one listing
PART = 1 << 20
MUCH = 1 << 18
DUMPABLE, SECCOMP, NO_NEW_PRIVS, FILTER = 4, 22, 38, 2  # of prctl
WRITABLE = ("/tmp", "/dev/shm", "/dev/mqueue")
"""Where programs may leave something, in a container whose root is read-only."""
SHARED = ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")
MEMORY_EVENTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


class Program:
    """A started program. given: what it still has to be given; ends: what it writes to, by name."""

    def __init__(self, number: int, pid: int, stdin: int, stdout: int, stderr: int) -> None:
        self.number = number
        self.pid = pid
        self.oom_kills = oom_kills()
        self.stdin: int | None = stdin
        self.ends = {"out": stdout, "err": stderr}
        self.given = bytearray()
        self.given_all = False


class Keeper:
    """answers: the descriptor to write answers to."""

    def __init__(self, requests: int, answers: int) -> None:
        self.requests, self.answers = requests, answers
        self.selector = selectors.DefaultSelector()
        self.programs: dict[int, Program] = {}
        self.asked = bytearray()
        self.said = bytearray()
        self.busy = False
        self.folder = os.getcwd()
        wake, self.wake_end = os.pipe()
        for fd in (requests, answers, wake, self.wake_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self.wake_end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(requests, selectors.EVENT_READ, self.listen)
        self.selector.register(wake, selectors.EVENT_READ, lambda: self.reap(wake))

    def run(self) -> None:
        """Until nobody asks any more; then all ends."""
        while self.requests >= 0:
            for key, _ in self.selector.select():
                key.data()
            self.speak()
            if self.busy != (len(self.said) > MUCH):
                self.busy = not self.busy
                for number, program in self.programs.items():
                    for name, fd in program.ends.items():
                        self.selector.unregister(fd) if self.busy else self.watch(number, name, fd)
        for program in self.programs.values():
            kill_tree(program.pid)

    def say(self, number: int, **message: Any) -> None:
        """Answer, as soon as there is room."""
        self.said += json.dumps({"id": number, **message}).encode() + b"\n"

    def speak(self) -> None:
        """Write what can be written now."""
        waited = self.answers in self.selector.get_map()
        with contextlib.suppress(BlockingIOError):
            while self.said:
                del self.said[: os.write(self.answers, memoryview(bytes(self.said[:CHUNK])))]
        if bool(self.said) != waited:
            if self.said:
                self.selector.register(self.answers, selectors.EVENT_WRITE, self.speak)
            else:
                self.selector.unregister(self.answers)

    def listen(self) -> None:
        """Take what was asked."""
        chunk = os.read(self.requests, CHUNK)
        if not chunk:
            self.requests = -1
        *lines, rest = (bytes(self.asked) + chunk).split(b"\n") if b"\n" in chunk else [self.asked + chunk]
        self.asked = bytearray(rest)
        for line in lines:
            message = json.loads(line)
            number, what = message.pop("id"), message.pop("do")
            try:
                if what in ("start", "write", "read", "list"):
                    os.makedirs(self.folder, exist_ok=True)
                    os.chdir(self.folder)  # a program may have moved the folder that it was
                getattr(self, "do_" + what)(number, **message)
            except Exception as error:
                said = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
                self.say(number, error=str(said)[:500])

    def do_confine(self, number: int, rules: str) -> None:
        """Put a filter of system calls (struct sock_filter[]) on this process, and so on all it starts."""
        code = ctypes.create_string_buffer(base64.b64decode(rules))
        program = struct.pack("HxxxxxxP", len(code.raw[:-1]) // 8, ctypes.addressof(code))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(SECCOMP, FILTER, program, 0, 0):
            return self.say(number, error=os.strerror(ctypes.get_errno()))
        self.say(number, done=True)

    def do_start(self, number: int, argv: list[str], limits: dict[str, float]) -> None:
        """Start a program. limits: bounds by the name of their kind in the module resource."""
        fds: list[int] = []
        try:
            for _ in range(3):
                fds += os.pipe()
            pid = os.fork()
        except OSError as error:
            for fd in fds:
                os.close(fd)
            self.say(number, err=encoded(f"cannot start: {error.strerror}\n".encode()))
            self.say(number, code=126)
            return
        stdin, give, out, stdout, err, stderr = fds
        if pid == 0:
            become(argv, limits, (stdin, stdout, stderr))
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        for fd in (give, out, err):
            os.set_blocking(fd, False)
        program = self.programs[number] = Program(number, pid, give, out, err)
        for name, fd in program.ends.items() if not self.busy else ():
            self.watch(number, name, fd)

    def do_give(self, number: int, data: str = "", last: bool = False) -> None:
        """Give a program input. last: whether this is the end of it."""
        program = self.programs.get(number)
        if program is not None and program.stdin is not None:
            if not program.given and program.stdin not in self.selector.get_map():
                self.selector.register(program.stdin, selectors.EVENT_WRITE, lambda: self.feed(program))
            program.given += base64.b64decode(data)
            program.given_all |= last

    def do_kill(self, number: int) -> None:
        """End a program and what it has started, as far as that can still be told."""
        if number in self.programs:
            kill_tree(self.programs[number].pid)

    def do_empty(self, number: int) -> None:
        """End all programs, and remove all files: what comes next finds nothing of what was here.

        An error where something may be left; then nothing more should run here.
        """
        import shutil  # which takes as long as all else that is imported here

        if os.getpid() != 1:
            raise OSError("only the first process of its namespace knows what belongs to it")
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # all in this namespace but itself
            try:
                pid, status, used = os.wait4(-1, 0)
            except ChildProcessError:  # who has no parent any more is its child, so nobody is left
                break
            self.note(pid, status, used)
        for folder in WRITABLE:
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                path = os.path.join(folder, name)
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
        for table in SHARED:
            with open(table) as file:
                if len(file.readlines()) > 1:  # below the names of its columns
                    raise OSError(f"{table} tells of something that was left")
        self.say(number, done=True)

    def do_write(self, number: int, path: str, data: str, more: bool) -> None:
        """Write a file, its folders too. more: whether it goes behind what is there."""
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | (os.O_APPEND if more else 0)
        with opened(path, flags) as file:
            if not more:
                file.truncate(0)
            file.write(base64.b64decode(data))
        self.say(number, done=True)

    def do_read(self, number: int, path: str, start: int) -> None:
        """Send a part of a file, and how large it is."""
        with opened(path, os.O_RDONLY | os.O_NONBLOCK) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(start)
            data = file.read(PART)
        self.say(number, data=encoded(data), size=size)

    def do_list(self, number: int, most: int) -> None:
        """Send the paths of what is there and is no folder. What cannot be looked into is an error, for it may hide
        something; and no more is looked at than may be listed."""
        paths: list[str] = []
        folders, seen, size = [""], 0, 0
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder or ".") as entries:
                    for entry in entries:
                        path = folder + entry.name
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(path + "/")
                            seen += 1
                        else:
                            paths.append(path)
                            size += len(path)
                        if len(paths) > most or seen > most:
                            return self.say(number, error=f"there are more than {most} files or folders")
                        if size > NAMES:
                            return self.say(number, error=f"the names of the files have more than {NAMES} characters")
            except OSError as error:
                return self.say(number, error=f"the folder {folder[:100]!r} cannot be listed ({error.strerror})")
        self.say(number, paths=sorted(paths))

    def watch(self, number: int, name: str, fd: int) -> None:
        """Pass on what a program writes."""
        self.selector.register(fd, selectors.EVENT_READ, lambda: self.drain(number, name))

    def drain(self, number: int, name: str) -> bool:
        """Pass on what is there now; whether more may come."""
        program = self.programs.get(number)
        if program is None or name not in program.ends:
            return False
        try:
            chunk = os.read(program.ends[name], CHUNK)
        except BlockingIOError:
            return False
        if chunk:
            self.say(number, **{name: encoded(chunk)})
        else:
            self.close(program.ends.pop(name))
        return bool(chunk)

    def feed(self, program: Program) -> None:
        """Give a program what it takes now of its input."""
        if program.stdin is None:
            return
        before = len(program.given)
        try:
            while program.given:
                del program.given[: os.write(program.stdin, bytes(program.given[:CHUNK]))]
        except BlockingIOError:
            return self.say(program.number, took=before - len(program.given))
        except OSError:  # it reads no more
            program.given_all = True
            program.given.clear()
        self.say(program.number, took=before)
        if program.given_all:
            self.close(program.stdin)
            program.stdin = None
        else:
            self.selector.unregister(program.stdin)

    def reap(self, wake: int) -> None:
        """Take note of what has ended; what has no parent any more is this process's child, too."""
        with contextlib.suppress(BlockingIOError):
            os.read(wake, CHUNK)
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.note(pid, status, used)

    def note(self, pid: int, status: int, used: resource.struct_rusage) -> None:
        """Tell of the end of a process, where it is a program's."""
        for number, program in self.programs.items():
            if program.pid == pid:
                return self.end(number, os.waitstatus_to_exitcode(status), used)

    def end(self, number: int, code: int, used: resource.struct_rusage) -> None:
        """Pass on what a program has still written, and how it ended. What it left running writes to nobody."""
        program = self.programs[number]
        for name in list(program.ends):
            for _ in range(MUCH // CHUNK * 8):  # more than a pipe holds
                if not self.drain(number, name):
                    break
        for fd in (*program.ends.values(), program.stdin):
            if fd is not None:
                self.close(fd)
        program.stdin = None
        program.ends.clear()
        del self.programs[number]
        cpu_s, memory = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
        ended = {"code": code} if code >= 0 else {"code": 128 - code, "signal": -code}
        kills = oom_kills()
        ran_out = None if kills is None else kills > (program.oom_kills or 0)
        self.say(number, **ended, cpu_s=cpu_s, memory_bytes=memory, ran_out=ran_out)

    def close(self, fd: int) -> None:
        """Close, and watch no more."""
        with contextlib.suppress(KeyError):
            self.selector.unregister(fd)
        os.close(fd)


def become(argv: list[str], limits: dict[str, float], ends: tuple[int, int, int]) -> None:
    """In the new process: turn into the program; never returns."""
    try:
        os.setsid()
        for target, fd in enumerate(ends):
            os.dup2(fd, target)
        os.closerange(3, 65536)
        for kind in (signal.SIGPIPE, signal.SIGINT, signal.SIGCHLD, signal.SIGXFSZ):
            signal.signal(kind, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(DUMPABLE, 1, 0, 0, 0)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where memory runs out, and /proc can be written, this goes first
        for name, bound in limits.items():
            kind, hard = getattr(resource, name), resource.getrlimit(getattr(resource, name))[1]
            allowed = int(bound) if hard == resource.RLIM_INFINITY else min(int(bound), hard)
            warned = name == "RLIMIT_CPU" and (hard == resource.RLIM_INFINITY or allowed < hard)
            resource.setrlimit(kind, (allowed, allowed + warned))
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        os.write(2, f"{argv[0]}: not found\n".encode("utf-8", "surrogateescape"))
        os._exit(127)
    except BaseException as error:
        os.write(2, f"cannot start: {error}\n".encode("utf-8", "replace"))
        os._exit(126)


def kill_tree(pid: int) -> None:
    """End a process, its descendants, and all of the session of processes that it leads."""
    if not os.path.isdir("/proc"):
        os.killpg(pid, signal.SIGKILL)
        return
    for _ in range(100):
        rows, gone = {}, set()
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                rows[int(name)] = int(fields[1]), int(fields[3])
                if fields[0] == b"Z" and fields[17] == b"1":  # else other threads of it run
                    gone.add(int(name))
        found = {pid} & rows.keys()
        while more := {
            one for one, (parent, session) in rows.items() if one not in found and (parent in found or session == pid)
        }:
            found |= more
        if not found - gone:
            return
        for one in found - gone:
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)


def oom_kills() -> int | None:
    """How many processes the kernel has ended for want of memory, where this can be seen in here."""
    for path in MEMORY_EVENTS:
        with contextlib.suppress(OSError), open(path) as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return None


@contextlib.contextmanager
def opened(path: str, flags: int) -> Iterator[BinaryIO]:
    """An ordinary file. Raises OSError where there is none, or what is there is something else."""
    fd = os.open(path, flags, 0o644)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        with open(fd, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "wb", closefd=False) as file:
            yield file
    finally:
        os.close(fd)


def encoded(data: bytes) -> str:
    """Bytes as a text of JSON."""
    return base64.b64encode(data).decode()


def main() -> None:
    """Take over standard input and output, then do what is asked."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    requests, answers = os.dup(0), os.dup(1)
    os.set_inheritable(requests, False)
    os.environ.pop("HOSTNAME", None)  # an engine's own; no program should know where it runs
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    if len(sys.argv) > 1:
        os.makedirs(sys.argv[1], exist_ok=True)
        os.chdir(sys.argv[1])
    keeper = Keeper(requests, answers)
    keeper.say(0, machine=os.uname().machine)
    keeper.speak()
    keeper.run()
    os._exit(0)


if __name__ == "__main__":
    main()
