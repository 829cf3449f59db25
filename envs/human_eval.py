"""HumanEval: functions to complete, judged by their tests in a sandbox (ludus/HumanEval-v0, ludus/HumanEvalRepair-v0).

Source: arXiv:2107.03374. The tests are hidden: they are in no observation, and run where no candidate can see them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..verifiers.code.verifier import CodeVerifier
from ..verifiers.verdict import InfrastructureError, Outcome, Verdict
from .dataset_folder import dataset_folder
from .errors import EnvError, TaskError
from .source import ListSource, load_hub_rows, read_jsonl
from .task import Task
from .text_env import TextEnv

_FILE = "HumanEval.jsonl.gz"
_TEXTS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
_ASK = "Complete this function. Answer with all of it in one Python code block.\n\n```python\n{}```"


def _rows(folder: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where the row stands, row) from the folder, or from the hub where there is none."""
    if folder is not None:
        path = folder / _FILE
        for line, row in read_jsonl(path):
            yield f"{path}:{line}", row
        return
    try:
        rows = load_hub_rows("openai/openai_humaneval", None, "test")
    except TaskError as error:
        raise EnvError(
            "HumanEval is not on this machine: give the option data_dir, or set LUDUS_DATA to the folder that holds "
            f"humaneval/{_FILE}. (From the hub: {error})"
        ) from error
    for number, hub_row in enumerate(rows):
        yield f"openai/openai_humaneval[test]: row {number}", dict(hub_row)


@functools.lru_cache(maxsize=4)
def load_functions(folder: Path | None) -> tuple[Task, ...]:
    """The 164 tasks in the order of the file. Raises TaskError for a row without one of its texts."""
    tasks = []
    for where, row in _rows(folder):
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

    def __init__(
        self,
        *,
        data_dir: str | None = None,
        sandbox: str = "auto",
        system_prompt: str | None = None,
        max_turns: int = 1,
        render_mode: Literal["ansi"] | None = None,
    ) -> None:
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
