"""HumanEval: functions to complete, judged by their tests in a sandbox (ludus/HumanEval-v0, ludus/HumanEvalRepair-v0).

Source: arXiv:2107.03374. The tests are hidden: they are in no observation, and run where no candidate can see them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import numpy as np

from ..sandbox.choose import checked_sandbox
from ..verifiers.code.verifier import CodeVerifier
from ..verifiers.verdict import InfrastructureError, Outcome, Verdict
from .dataset_folder import dataset_folder, dataset_rows
from .errors import TaskError
from .source import ListSource
from .task import Task
from .text_env import TextEnv

_FILE = "HumanEval.jsonl.gz"
_TEXTS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
_ASK = "Complete this function. Answer with all of it in one Python code block.\n\n```python\n{}```"


@functools.lru_cache(maxsize=4)
def load_functions(folder: Path | None) -> tuple[Task, ...]:
    """The 164 tasks in the order of the file. Raises TaskError for a row without one of its texts."""
    tasks = []
    for where, row in dataset_rows("HumanEval", folder, _FILE, ("openai/openai_humaneval", None, "test")):
        missing = [name for name in _TEXTS if not isinstance(row.get(name), str)]
        if missing:
            raise TaskError(f"{where}: the row needs the text {missing[0]!r}; it has {', '.join(row)}.")
        tests = {"entry_point": row["entry_point"], "check": row["test"], "prefix": row["prompt"]}
        data = {"prompt": row["prompt"], "solution": row["canonical_solution"]}
        tasks.append(Task(row["task_id"], _ASK.format(row["prompt"]), tests, data))
    return tuple(tasks)


class HumanEval(TextEnv):
    """Functions to complete from their signature and docstring, judged by hidden tests; one turn.

    data_dir: folder with HumanEval.jsonl.gz; by default $LUDUS_DATA/humaneval, a shared/data/humaneval near the working
    directory, or the hub's openai/openai_humaneval. sandbox: see `ludus.sandbox.open_sandbox`.
    """

    judged = "program"

    def __init__(
        self,
        *,
        data_dir: str | None = None,
        sandbox: str = "auto",
        system_prompt: str | None = None,
        max_turns: int = 1,
        render_mode: Literal["ansi"] | None = None,
    ) -> None:
        checked_sandbox(sandbox)
        tasks = load_functions(dataset_folder("humaneval", data_dir, _FILE))
        self.verifier = CodeVerifier(sandbox)
        super().__init__(
            ListSource(list(tasks)), system_prompt=system_prompt, max_turns=max_turns, render_mode=render_mode
        )

    def verify(self, task: Task, response: str) -> Verdict:
        """CORRECT where the last code block passes the tests."""
        return self.verifier.verify(task.answer, response)

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """The solution in a code block; a flawed one returns nothing."""
        body = "    return None\n" if rng.random() < flaw_rate else task.data["solution"]
        return [f"```python\n{task.data['prompt']}{body}```"]


class HumanEvalRepair(HumanEval):
    """As HumanEval, over several turns: what fails is told, without expected values, and may be corrected.

    Options as those of HumanEval. max_turns: attempts.
    """

    def __init__(
        self,
        *,
        data_dir: str | None = None,
        sandbox: str = "auto",
        system_prompt: str | None = None,
        max_turns: int = 4,
        render_mode: Literal["ansi"] | None = None,
    ) -> None:
        super().__init__(
            data_dir=data_dir,
            sandbox=sandbox,
            system_prompt=system_prompt,
            max_turns=max_turns,
            render_mode=render_mode,
        )
        self._judged: tuple[str, str, Verdict] | None = None

    def respond(self, task: Task, action: str) -> str | None:
        """What fails; None where nothing does, or no turn is left."""
        verdict = super().verify(task, action)
        if verdict.outcome is Outcome.ERROR:
            raise InfrastructureError(verdict.reason)
        self._judged = (task.id, action, verdict)
        if verdict.outcome is Outcome.CORRECT or self.turn >= self.max_turns:
            return None
        return f"{verdict.reason}\nCorrect the function, and answer with all of it in one Python code block."

    def verify(self, task: Task, response: str) -> Verdict:
        """The verdict on the last attempt, which was made to answer it."""
        if self._judged is not None and self._judged[:2] == (task.id, response):
            return self._judged[2]
        return super().verify(task, response)

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """The solution; with probability flaw_rate after an attempt that returns nothing."""
        right = super().demonstrate(task, rng)
        flawed = super().demonstrate(task, rng, flaw_rate=1.0)
        return [*flawed, *right] if rng.random() < flaw_rate else right
