"""ludus/RepoRepair-v0: a small project with one bug, to be found and mended; hidden checks decide.

Invariant: hidden checks never enter the session; the project is read out of it, and judged in sandboxes of its own. No
task of a split shows any of the project of the other one.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from ..sandbox.session import Session
from ..verifiers.code.program import MAX_CHARS
from ..verifiers.code.verifier import CodeVerifier
from ..verifiers.verdict import Outcome, Verdict
from .errors import NoDemonstration, ToolError
from .mutations import Mutation, mutations
from .repair_checks import CALLS, bundle, hidden_tests, project_files
from .session_env import SessionEnv, shown
from .source import ListSource
from .split import Split, check_split
from .task import Task
from .tool import tool
from .tool_call import Dialect, render_call

PROJECTS: dict[Split, str] = {"train": "ledger", "test": "depot"}
"""Which project is broken in which split."""
_MOST_MODULES = 20
_DONE = "The bug is mended."


@dataclass(frozen=True)
class Bug:
    """A mutation of one module. symptom: the first function whose hidden checks fail."""

    path: str
    mutation: Mutation
    symptom: str

    @property
    def package(self) -> str:
        """Of which project it is."""
        return _package(self.path)

    @property
    def key(self) -> list[Any]:
        """What tells it from all others, as plain data."""
        one = self.mutation
        return [self.path, one.line, one.column, one.before, one.after, self.symptom]


def candidates() -> list[tuple[str, Mutation]]:
    """Every single mutation of the projects that leaves the way their text is written as it is, by path."""
    texts = {path: text for package in CALLS for path, text in project_files(package).items()}
    modules = {path: text for path, text in texts.items() if "/" in path}
    return [(path, one) for path, text in modules.items() for one in mutations(text) if not one.after.startswith("(")]


def prove(path: str, mutation: Mutation, verifier: CodeVerifier) -> Bug | None:
    """The bug that a mutation is; None where the hidden checks do not notice it, or cannot say where."""
    package = _package(path)
    verdict = judge(package, {**project_files(package), path: mutation.source}, verifier)
    if verdict.outcome is Outcome.CORRECT:
        return None
    symptom = next((name for name in CALLS[package] if f"{name} r" in verdict.reason), None)
    if symptom is None:
        return None  # the project does not even load, or takes for ever
    return Bug(path, mutation, symptom)


def judge(package: str, sources: Mapping[str, str], verifier: CodeVerifier) -> Verdict:
    """What the hidden checks say of a project. sources: its files, by path."""
    modules = {path.partition("/")[2]: text for path, text in sources.items() if path.startswith(f"{package}/")}
    return verifier.verify_program(hidden_tests(package), bundle(package, modules))


def _package(path: str) -> str:
    return path.partition("/")[0]


@cache
def bugs() -> tuple[Bug, ...]:
    """The mutations that the hidden checks notice, as tests/test_repo_repair.py proves."""
    listed = json.loads(files(__package__).joinpath("repair_project/bugs.json").read_text(encoding="utf-8"))
    known = {(path, one.line, one.column, one.before, one.after): one for path, one in candidates()}
    return tuple(Bug(path, known[path, *rest], symptom) for path, *rest, symptom in listed)


class RepoRepair(SessionEnv):
    """A small project of four modules with one bug, to be found and mended with tools; hidden checks decide.

    split: "train" or "test", which are bugs of different projects, so that no project learnt by heart is paid for in
    the other. sandbox: see `ludus.sandbox.open_sandbox`. The tests in a project are few, and most bugs pass them.
    """

    judged = "state"
    default_system_prompt = (
        "You maintain a small Python project. Find the bug that is reported, and mend it with the tools; "
        "when it is mended, say so in a message without a tool call."
    )

    def __init__(
        self,
        *,
        split: Split = "train",
        sandbox: str = "auto",
        dialect: Dialect = "json",
        system_prompt: str | None = None,
        max_turns: int = 12,
        render_mode: Literal["ansi"] | None = None,
    ) -> None:
        check_split(split)
        self.split: Split = split
        self.verifier = CodeVerifier(sandbox)
        chosen = [bug for bug in bugs() if bug.package == PROJECTS[split]]

        @tool
        def list_files() -> str:
            """List the files of the project."""
            return shown(self.execute(["find", ".", "-name", "*.py", "-printf", "%P\\n"]))

        @tool
        def read_file(path: str) -> str:
            """Return what stands in a file."""
            return self.read_file(path, most=MAX_CHARS)

        @tool
        def search(text: str) -> str:
            """Return the lines of the project that hold a text, with their files and numbers."""
            return shown(self.execute(["grep", "-rnF", "--include=*.py", "--", text, "."]))

        @tool
        def edit(path: str, old: str, new: str) -> str:
            """Replace a text in a file, which must stand there exactly once, by another."""
            content = self.read_file(path, most=MAX_CHARS)
            if content.count(old) != 1 or not old:
                raise ToolError(f"The old text stands {content.count(old) if old else 0} times in {path}; give one.")
            self.write_file(path, content.replace(old, new))
            return f"{path} is changed."

        @tool
        def run_tests() -> str:
            """Run the tests in the project."""
            said = shown(self.execute(["python3", "-m", "unittest", "-q"]))
            return re.sub(r"(Ran \d+ tests?) in [\d.]+s", r"\1", said)  # the same each time

        self._read, self._edit, self._run_tests = read_file, edit, run_tests
        super().__init__(
            ListSource([_task(bug) for bug in chosen]),
            tools=(list_files, read_file, search, edit, run_tests),
            sandbox=sandbox,
            dialect=dialect,
            system_prompt=system_prompt,
            max_turns=max_turns,
            render_mode=render_mode,
        )

    def prepare(self, task: Task, session: Session) -> None:
        """The project with its bug."""
        broken = task.data["path"]
        for path, content in {**project_files(_package(broken)), broken: task.data["source"]}.items():
            session.write_file(path, content)

    def verify(self, task: Task, response: str) -> Verdict:
        """CORRECT where the hidden checks pass on the modules as they stand in the session."""
        package = _package(task.data["path"])
        try:
            paths = [path for path in self.list_files() if path.startswith(f"{package}/") and path.endswith(".py")]
            sources: dict[str, str] = {}
            for path in paths[:_MOST_MODULES]:
                room = MAX_CHARS - sum(map(len, sources.values()))
                sources[path] = self.read_file(path, most=max(room, 0))
        except ToolError as error:
            return Verdict.wrong(str(error))
        return judge(package, sources, self.verifier)

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """Read the module, undo the bug, run the tests; a flawed one forgets to undo it."""
        if "after" not in task.data:
            raise NoDemonstration(f"The task {task.id} was not made by RepoRepair; it holds no bug to undo.")
        path = task.data["path"]
        actions = [render_call(self._read, {"path": path}, self.dialect)]
        if rng.random() >= flaw_rate:
            old, new = task.data["after"], task.data["before"]
            actions.append(render_call(self._edit, {"path": path, "old": old, "new": new}, self.dialect))
        return [*actions, render_call(self._run_tests, {}, self.dialect), _DONE]


def _task(bug: Bug) -> Task:
    """The task to mend a bug. Its data has the whole lines around it, as a change that stands there exactly once."""
    package = bug.package
    right = project_files(package)[bug.path].splitlines()
    wrong = bug.mutation.source.splitlines()
    first = last = bug.mutation.line - 1
    while "\n".join(wrong).count("\n".join(wrong[first : last + 1])) != 1:
        first, last = max(first - 1, 0), last + 1
    number = next(i for i in range(len(right)) if right[i] != wrong[i])
    first, last = min(first, number), max(last, number)
    module, _, name = bug.symptom.partition(".")
    prompt = (
        f"The project in your folder has the package `{package}`. A user reports that `{package}.{module}.{name}` does "
        "not do what its documentation says. The cause may be in another function. Find the bug and mend it."
    )
    data = {
        "path": bug.path,
        "source": bug.mutation.source,
        "before": "\n".join(right[first : last + 1]),
        "after": "\n".join(wrong[first : last + 1]),
    }
    name = f"repair-{module}-{bug.mutation.line}-{zlib.crc32(json.dumps(bug.key).encode()):08x}"
    return Task(name, prompt, None, data)
