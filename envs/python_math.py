"""ludus/PythonMath-v0: mathematical problems with a Python interpreter that keeps its names from call to call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..sandbox.errors import SandboxError
from ..sandbox.interpreter import PythonInterpreter
from ..verifiers.extraction import USUAL, Rule
from ..verifiers.math.verifier import MathVerifier
from ..verifiers.verdict import Verdict
from .errors import EnvError, NoDemonstration
from .options import check_list, check_path
from .python_math_problems import PROBLEMS
from .session_env import SessionEnv
from .source import JsonlSource, ProceduralSource, TaskSource
from .split import Split, belongs, check_split
from .task import Task
from .tool import tool
from .tool_call import Dialect, render_call


class PythonMath(SessionEnv):
    """Mathematical problems, solved with a Python interpreter over several turns; the math verifier judges the answer.

    split: "train" or "test", which share no problem. seed: of the task stream. levels: 1, 2, 3, to be taken (None for
    all). path: a file of JSON lines with "problem" and "answer" instead, of which split, seed and levels are no part.
    sandbox: see `ludus.sandbox.open_sandbox`. order: where an answer may stand, see verifiers.extraction.Rule.
    """

    default_system_prompt = (
        "Solve the problem with Python: what you define in one call is there in the next. "
        "Then give the final answer in \\boxed{}."
    )

    def __init__(
        self,
        *,
        split: Split = "train",
        seed: int = 0,
        levels: Sequence[int] | None = None,
        path: str | None = None,
        sandbox: str = "auto",
        order: Sequence[Rule] = USUAL,
        dialect: Dialect = "json",
        system_prompt: str | None = None,
        max_turns: int = 8,
        render_mode: Literal["ansi"] | None = None,
    ) -> None:
        check_split(split)
        check_list("levels", levels)
        check_path("path", path)
        known = sorted({level for level, _ in PROBLEMS.values()})
        for level in levels or ():
            if level not in known:
                raise EnvError(f"levels: there is no level {level!r:.100}; the levels are {known}.")
        self.names = [name for name, (level, _) in PROBLEMS.items() if levels is None or level in levels]
        if not self.names:
            raise EnvError(f"levels is empty; the levels are {known}, or leave it out.")
        self.split: Split = split
        self.seed = seed
        self.verifier = MathVerifier(order)
        self._interpreter: PythonInterpreter | None = None

        @tool
        def python(code: str) -> str:
            """Run Python code and return what it prints, and the value of its last expression."""
            return self._run(code)

        self._python = python
        generated = ProceduralSource(self._generate, seed)
        source: TaskSource = generated if path is None else JsonlSource(path, "problem", "answer")
        super().__init__(
            source,
            tools=(python,),
            sandbox=sandbox,
            dialect=dialect,
            system_prompt=system_prompt,
            max_turns=max_turns,
            render_mode=render_mode,
        )

    def _generate(self, rng: np.random.Generator, index: int) -> Task:
        name = self.names[int(rng.integers(len(self.names)))]
        level, make = PROBLEMS[name]
        problem = make(rng)
        while not belongs(problem.text, self.split) or problem.mistaken == problem.answer:
            problem = make(rng)
        flawed = {"flawed": problem.flawed, "mistaken": str(problem.mistaken)}
        data = {"problem": name, "level": level, "code": problem.code, **flawed}
        return Task(f"pythonmath-{self.split}-{self.seed}-{index}", problem.text, str(problem.answer), data)

    def _run(self, code: str) -> str:
        late = self.late()
        if late:
            return late
        if self._interpreter is None:
            self._interpreter = PythonInterpreter(self.session)
        self._ran = True
        try:
            return self._interpreter.run(code, within_s=self.left_s()).output or "[no output]"
        except SandboxError as error:
            raise self.failure(str(error)) from error

    def _end_session(self) -> None:
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None:
            interpreter.close()
        super()._end_session()

    def verify(self, task: Task, response: str) -> Verdict:
        """CORRECT where the final answer equals the right one."""
        return self.verifier.verify(task.answer, response)

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """The code, a call for each piece, then what it found; a flawed one makes a typical mistake."""
        if "code" not in task.data:
            raise NoDemonstration(f"The task {task.id} was not made by PythonMath; it holds no code to demonstrate.")
        code, answer = list(task.data["code"]), task.answer
        if rng.random() < flaw_rate:
            code[-1], answer = task.data["flawed"], task.data["mistaken"]
        calls = [render_call(self._python, {"code": piece}, self.dialect) for piece in code]
        return [*calls, f"The answer is \\boxed{{{answer}}}."]
