"""ludus/Shell-v0: small jobs with files, done in a shell and judged by how the files stand at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..sandbox.session import Session
from ..verifiers.verdict import Verdict
from .errors import EnvError, NoDemonstration, ToolError, did_you_mean
from .options import check_list
from .session_env import SessionEnv, shown
from .source import ProceduralSource
from .split import Split, belongs, check_split
from .task import Task
from .tool import tool
from .tool_call import Dialect, render_call

_NAMES = ("apple", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "jade", "koala", "lotus")
_WORDS = ("red", "blue", "north", "south", "open", "shut", "fast", "slow", "error", "note", "warn", "done")
_DONE = "Done."
_SPARE_BYTES = 1_000
"""What a file may hold beyond its expected content, for line ends at its end."""


@dataclass(frozen=True)
class Job:
    """files: at the beginning. expected: every file at the end, by its path. commands: one way to do it."""

    prompt: str
    files: dict[str, str]
    expected: dict[str, str]
    commands: list[str]


def _draw(rng: np.random.Generator, among: Sequence[str], count: int) -> list[str]:
    return [among[int(index)] for index in rng.choice(len(among), size=count, replace=False)]


def _text(rng: np.random.Generator, lines: int) -> str:
    rows = (" ".join(_draw(rng, _WORDS, int(rng.integers(2, 5)))) for _ in range(lines))
    return "".join(f"{row} {int(rng.integers(10, 1_000))}\n" for row in rows)


def _write(rng: np.random.Generator) -> Job:
    (name,), number = _draw(rng, _NAMES, 1), int(rng.integers(1_000, 10_000))
    prompt = f"Write the number {number} into the file {name}.txt, as its only line."
    return Job(prompt, {}, {f"{name}.txt": f"{number}\n"}, [f"echo {number} > {name}.txt"])


def _rename(rng: np.random.Generator) -> Job:
    names = _draw(rng, _NAMES, int(rng.integers(3, 6)))
    old, new = _draw(rng, ("txt", "log", "dat", "md"), 2)
    files = {f"{name}.{old}": _text(rng, 2) for name in names[:-1]} | {f"{names[-1]}.{new}": _text(rng, 2)}
    expected = {
        (f"{path[: -len(old)]}{new}" if path.endswith(f".{old}") else path): text for path, text in files.items()
    }
    prompt = f"Rename each file here that ends with .{old} so that it ends with .{new}; leave the others as they are."
    return Job(prompt, files, expected, [f'for f in *.{old}; do mv "$f" "${{f%.{old}}}.{new}"; done'])


def _count(rng: np.random.Generator) -> Job:
    (name,), (word,) = _draw(rng, _NAMES, 1), _draw(rng, _WORDS, 1)
    text = _text(rng, int(rng.integers(8, 30)))
    count = sum(word in line.split() for line in text.splitlines())
    prompt = (
        f"Count the lines of {name}.log that have the word {word}. Write the number into count.txt, as its only line."
    )
    files = {f"{name}.log": text}
    return Job(prompt, files, {**files, "count.txt": f"{count}\n"}, [f"grep -cw {word} {name}.log > count.txt; true"])


def _sort(rng: np.random.Generator) -> Job:
    (name,) = _draw(rng, _NAMES, 1)
    numbers = [int(number) for number in rng.integers(1, 500, size=int(rng.integers(6, 20)))]
    files = {f"{name}.txt": "".join(f"{number}\n" for number in numbers)}
    ordered = "".join(f"{number}\n" for number in sorted(set(numbers)))
    prompt = f"{name}.txt has one number a line. Write them into sorted.txt in ascending order, each only once."
    return Job(prompt, files, {**files, "sorted.txt": ordered}, [f"sort -nu {name}.txt > sorted.txt"])


def _sum(rng: np.random.Generator) -> Job:
    names = _draw(rng, _NAMES, int(rng.integers(3, 7)))
    rows = [(name, int(rng.integers(1, 900))) for name in names]
    files = {"stock.csv": "item,count\n" + "".join(f"{name},{count}\n" for name, count in rows)}
    total = sum(count for _, count in rows)
    prompt = "stock.csv has the columns item and count. Write the sum of all counts into total.txt, as its only line."
    command = "awk -F, 'NR > 1 { s += $2 } END { print s }' stock.csv > total.txt"
    return Job(prompt, files, {**files, "total.txt": f"{total}\n"}, [command])


def _collect(rng: np.random.Generator) -> Job:
    folders, names = _draw(rng, _NAMES, 3), _draw(rng, _WORDS, 6)
    files = {f"{folders[i % 3]}/{name}.{'txt' if i % 2 else 'bak'}": _text(rng, 2) for i, name in enumerate(names)}
    expected = {(f"all/{path.split('/')[1]}" if path.endswith(".txt") else path): text for path, text in files.items()}
    prompt = "Move every .txt file from the folders here into one new folder, all; leave the .bak files where they are."
    return Job(prompt, files, expected, ["mkdir all", "mv */*.txt all/"])


def _replace(rng: np.random.Generator) -> Job:
    names, (old, new) = _draw(rng, _NAMES, 3), _draw(rng, _WORDS, 2)
    files = {f"conf/{name}.ini": f"mode={old}\nsize={int(rng.integers(10, 500))}\nname=x{old}\n" for name in names}
    expected = {path: text.replace(f"mode={old}", f"mode={new}") for path, text in files.items()}
    prompt = f"In every .ini file in conf, change the setting mode from {old} to {new}. Change nothing else."
    return Job(prompt, files, expected, [f"sed -i 's/^mode={old}$/mode={new}/' conf/*.ini"])


def _largest(rng: np.random.Generator) -> Job:
    names = _draw(rng, _NAMES, int(rng.integers(4, 7)))
    files = {
        name: "x" * int(size) + "\n"
        for name, size in zip(names, rng.permutation(40)[: len(names)] * 7 + 5, strict=True)
    }
    largest = max(files, key=lambda name: len(files[name]))
    prompt = "Delete the largest file here. Write its name into deleted.txt, as its only line; leave the others."
    kept = {name: text for name, text in files.items() if name != largest}
    command = 'f=$(ls -S | head -n 1); rm "$f"; echo "$f" > deleted.txt'
    return Job(prompt, files, {**kept, "deleted.txt": f"{largest}\n"}, [command])


JOBS: dict[str, Callable[[np.random.Generator], Job]] = {
    "write": _write,
    "rename": _rename,
    "count": _count,
    "sort": _sort,
    "sum": _sum,
    "collect": _collect,
    "replace": _replace,
    "largest": _largest,
}


class Shell(SessionEnv):
    """Small jobs with files, to be done in a shell; what the files are at the end decides.

    split: "train" or "test", which share no job. seed: of the task stream. jobs: names to take (None for all, see
    JOBS). sandbox: see `ludus.sandbox.open_sandbox`. The folder may hold nothing at the end that was not asked for.
    """

    judged = "state"
    default_system_prompt = (
        "You work in a folder on a Linux machine, with a shell. Do what you are asked, then say that it is done."
    )

    def __init__(
        self,
        *,
        split: Split = "train",
        seed: int = 0,
        jobs: Sequence[str] | None = None,
        sandbox: str = "auto",
        dialect: Dialect = "json",
        system_prompt: str | None = None,
        max_turns: int = 8,
        render_mode: Literal["ansi"] | None = None,
    ) -> None:
        check_split(split)
        check_list("jobs", jobs)
        for name in jobs or ():
            if not isinstance(name, str) or name not in JOBS:
                raise EnvError(f"Unknown job {name!r}.{did_you_mean(str(name), JOBS)}")
        self.split: Split = split
        self.seed = seed
        self.jobs = tuple(JOBS if jobs is None else jobs)
        if not self.jobs:
            raise EnvError(f"jobs is empty; name some of {', '.join(JOBS)}, or leave it out.")

        @tool
        def shell(command: str) -> str:
            """Run a command in the shell, in the folder of the job, and return what it writes."""
            return shown(self.execute(["sh", "-c", command]))

        self._shell = shell
        super().__init__(
            ProceduralSource(self._generate, seed),
            tools=(shell,),
            sandbox=sandbox,
            dialect=dialect,
            system_prompt=system_prompt,
            max_turns=max_turns,
            render_mode=render_mode,
        )

    def _generate(self, rng: np.random.Generator, index: int) -> Task:
        name = self.jobs[int(rng.integers(len(self.jobs)))]
        while True:
            job = JOBS[name](rng)
            if belongs(f"{job.prompt}{job.files}", self.split) and job.expected != job.files:
                break
        data: dict[str, Any] = {"job": name, "files": job.files, "commands": job.commands}
        return Task(f"shell-{self.split}-{self.seed}-{index}", job.prompt, job.expected, data)

    def prepare(self, task: Task, session: Session) -> None:
        """The files of the job."""
        for path, content in task.data["files"].items():
            session.write_file(path, content)

    def verify(self, task: Task, response: str) -> Verdict:
        """CORRECT where exactly the expected files are there, and hold what they should."""
        try:
            found = set(self.list_files())
        except ToolError as error:
            return Verdict.wrong(str(error))
        wrong = sorted(task.answer.keys() - found) + sorted(found - task.answer.keys())
        if wrong:
            there = "is missing" if wrong[0] in task.answer else "should not be there"
            return Verdict.wrong(f"The file {wrong[0]!r:.100} {there}.", files=sorted(found)[:50])
        for path, content in task.answer.items():
            try:
                text = self.read_file(path, most=len(content.encode()) + _SPARE_BYTES)
            except ToolError as error:
                return Verdict.wrong(str(error))
            if text.rstrip("\n") != content.rstrip("\n"):
                return Verdict.wrong(f"The file {path} does not hold what it should.", holds=text[:500])
        return Verdict.correct("All files are as they should be.")

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """The commands, then a word; a flawed one leaves out the last command, or looks around and does nothing."""
        if "commands" not in task.data:
            raise NoDemonstration(f"The task {task.id} was not made by Shell; it holds no commands to demonstrate.")
        commands = list(task.data["commands"])
        if rng.random() < flaw_rate:
            commands = [*commands[:-1], "ls"]
        return [*(render_call(self._shell, {"command": command}, self.dialect) for command in commands), _DONE]
