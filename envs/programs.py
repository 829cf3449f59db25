"""ludus/Programs-v0: programs that read standard input and write standard output, judged by hidden cases in a sandbox.

Invariant: the train and test splits share no statement: a template with its parameters belongs to one of them
(`split.belongs`, tests/test_programs.py). Every flawed demonstration of a generated task fails at least one case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..sandbox.choose import SANDBOXES
from ..verifiers.code.verifier import CodeVerifier
from ..verifiers.verdict import Verdict
from . import programs_level_1, programs_level_2, programs_level_3  # noqa: F401  (they register their templates)
from .errors import EnvError, NoDemonstration, TaskError, did_you_mean
from .options import check_list, check_path
from .program_template import PROGRAMS, Draft, Draw, Parameters, ProgramTemplate
from .source import ListSource, ProceduralSource, TaskSource, read_jsonl
from .split import Split, belongs, check_split
from .task import Task
from .text_env import TextEnv

LEVELS = (1, 2, 3)
CASES = (6, 10)
"""The fewest and the most cases of a generated task."""
_OUTPUTS = 3
"""So many different outputs the cases of a generated task have at least, so that no constant passes."""
_TRIES = 2_000
_PROMPT = "{}\n\nExample input:\n```\n{}```\nExample output:\n```\n{}```"
_CHATTY = 'print("Enter the input:")\n'
"""A typical mistake in front of any right program: what it prints besides is wrong."""
_FENCE = "```"
_CASES = r'[{"stdin": "1 2\n", "stdout": "3\n"}]'


class Programs(TextEnv):
    """Programs from standard input to standard output, judged by hidden cases; one turn.

    split: "train" or "test", which share no statement. seed: of the task stream. templates: names to take (None for
    all, see PROGRAMS). levels: 1, 2, 3, to be taken (None for all). path: a file of JSON lines (.jsonl, or packed
    .jsonl.gz) with tasks to take instead, see `read_programs`; split and seed play no part then. sandbox: see
    `ludus.sandbox.open_sandbox`. scoring: "all" cases must pass, or the reward is the "share" of those that do.
    Raises EnvError for an option that cannot work, and TaskError for a bad row.
    """

    judged = "program"
    default_system_prompt = (
        "Write a Python program that reads from standard input and prints to standard output. "
        "Answer with the whole program in one Python code block."
    )

    def __init__(
        self,
        *,
        split: Split = "train",
        seed: int = 0,
        templates: Sequence[str] | None = None,
        levels: Sequence[int] | None = None,
        path: str | None = None,
        sandbox: str = "auto",
        scoring: Literal["all", "share"] = "all",
        system_prompt: str | None = None,
        max_turns: int = 1,
        render_mode: Literal["ansi"] | None = None,
    ) -> None:
        check_split(split)
        if scoring not in ("all", "share"):
            raise EnvError(f"Unknown scoring {scoring!r}.{did_you_mean(str(scoring), ('all', 'share'))}")
        if isinstance(sandbox, str) and sandbox not in ("auto", *SANDBOXES):
            raise EnvError(f"Unknown sandbox {sandbox!r}.{did_you_mean(sandbox, ('auto', *SANDBOXES))}")
        check_path("path", path)
        if path is not None and (templates is not None or levels is not None):
            raise EnvError(f"templates and levels choose among generated tasks; leave them out with path = {path!r}.")
        self.split: Split = split
        self.seed = seed
        self.templates = _chosen(templates, levels)
        self.verifier = CodeVerifier(sandbox, scoring=scoring)
        source: TaskSource = ProceduralSource(self._generate, seed)
        if path is not None:
            source = ListSource(read_programs(Path(path)))
        super().__init__(source, system_prompt=system_prompt, max_turns=max_turns, render_mode=render_mode)

    def _generate(self, rng: np.random.Generator, index: int) -> Task:
        template = self.templates[int(rng.integers(len(self.templates)))]
        for _ in range(_TRIES):
            draft = template.build(Draw(rng))
            if not belongs(f"{template.name} {json.dumps(draft.parameters, sort_keys=True)}", self.split):
                continue
            if (drawn := _judged(template, draft)) is not None:
                break
        else:
            raise EnvError(f"The template {template.name} found no fitting cases; widen what it draws from.")
        cases, flawed = drawn
        data = {
            "template": template.name,
            "level": template.level,
            "parameters": draft.parameters,
            "solution": template.program(draft.parameters),
            "flawed": [template.program(parameters) for parameters in flawed],
        }
        prompt = _PROMPT.format(draft.statement, draft.example, _output(template, draft.parameters, draft.example))
        return Task(f"programs-{self.split}-{self.seed}-{index}", prompt, {"cases": cases}, data)

    def verify(self, task: Task, response: str) -> Verdict:
        """CORRECT where the last code block prints what every case asks for; PARTIAL is possible with scoring "share".

        Raises SandboxError where no sandbox can be opened.
        """
        return self.verifier.verify(task.answer, response)

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """The solution in a code block; with probability flaw_rate a program with a typical mistake, which fails.

        The mistake is a rule misread, such as "at least" for "more than"; in a task from a file it is a line that the
        program prints besides. Raises NoDemonstration where the task came without a solution.
        """
        solution = task.data.get("solution")
        if not solution:
            raise NoDemonstration(f"The task {task.id} has no 'solution'; add one to its row, or train without it.")
        flawed = task.data.get("flawed") or [_CHATTY + solution]
        mistaken, choice = bool(rng.random() < flaw_rate), int(rng.integers(len(flawed)))
        program = flawed[choice] if mistaken else solution
        return [f"{_FENCE}python\n{program.rstrip()}\n{_FENCE}"]


def read_programs(path: Path) -> list[Task]:
    """The tasks in a file of JSON lines, which may be packed by gzip (.gz), in their order.

    A row has "prompt", "cases" (a list of {"stdin": ..., "stdout": ...}), and may have "id" and "solution" (a whole
    program). Other keys are left out. Raises TaskError, which names file and line, for a row that is no task.
    """
    tasks: dict[str, Task] = {}
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    for line, row in read_jsonl(path):
        where = f"{path}:{line}"
        task = _task(row, where, f"{stem}-{line}")
        if task.id in tasks:
            raise TaskError(f"{where}: the id {task.id!r} stands in an earlier row, too; give each row its own.")
        tasks[task.id] = task
    if not tasks:
        raise TaskError(f"The task file {path} has no rows; write one task on each line.")
    return list(tasks.values())


def _task(row: Mapping[str, Any], where: str, default_id: str) -> Task:
    """A Task from one row of a file. Raises TaskError, which begins with `where`."""
    prompt, cases, solution = row.get("prompt"), row.get("cases"), row.get("solution")
    if not isinstance(prompt, str) or not prompt.strip():
        found = ", ".join(row) or "none"
        raise TaskError(f"{where}: the row needs the text 'prompt', which says what to write; its keys are: {found}.")
    if not isinstance(cases, list) or not cases:
        raise TaskError(f"{where}: the row needs 'cases', such as {_CASES}.")
    for number, case in enumerate(cases, 1):
        for key in ("stdin", "stdout"):
            if not isinstance(case, dict) or not isinstance(case.get(key), str):
                raise TaskError(f"{where}: case {number} needs the text {key!r}; write it, '' where it is empty.")
    if all(not case["stdout"].strip() for case in cases):
        raise TaskError(f"{where}: no case asks for any output, so that every program passes; correct a 'stdout'.")
    if solution is not None and (not isinstance(solution, str) or not solution.strip()):
        raise TaskError(f"{where}: 'solution' must be the text of a program; correct it or leave it out.")
    if solution is not None and any(text.startswith(_FENCE) for text in solution.splitlines()):
        raise TaskError(f"{where}: 'solution' has a code fence ({_FENCE}); write the program alone.")
    if row.get("language") not in (None, "python"):
        raise TaskError(f"{where}: 'language' is {row['language']!r:.100}; only Python is asked for, so leave it out.")
    if row.get("id") is not None and not isinstance(row["id"], str | int):
        raise TaskError(f"{where}: 'id' must be a text or a whole number; correct it or leave it out.")
    name = default_id if row.get("id") is None else str(row["id"])
    kept = [{"stdin": case["stdin"], "stdout": case["stdout"]} for case in cases]
    return Task(name, prompt, {"cases": kept}, {} if solution is None else {"solution": solution})


def _chosen(templates: Sequence[str] | None, levels: Sequence[int] | None) -> tuple[ProgramTemplate, ...]:
    """The templates to take. Raises EnvError where a name or a level is unknown, or nothing is left."""
    check_list("templates", templates)
    check_list("levels", levels)
    for name in templates or ():
        if not isinstance(name, str) or name not in PROGRAMS:
            raise EnvError(f"Unknown template {name!r}.{did_you_mean(str(name), PROGRAMS)}")
    for level in levels or ():
        if level not in LEVELS:
            raise EnvError(f"levels: there is no level {level!r}; take some of {LEVELS}.")
    chosen = tuple(
        template
        for template in PROGRAMS.values()
        if (templates is None or template.name in templates) and (levels is None or template.level in levels)
    )
    if not chosen:
        raise EnvError(f"levels = {levels!r} and templates = {templates!r} choose nothing; leave one of them out.")
    return chosen


def _output(template: ProgramTemplate, parameters: Parameters, text: str) -> str:
    return template.solution(text, **parameters) + "\n"


def _judged(template: ProgramTemplate, draft: Draft) -> tuple[list[dict[str, str]], list[Parameters]] | None:
    """The cases, and the parameters of each slip that fails one of them; None where the draft is too weak."""
    least, most = CASES
    inputs = [text for text in dict.fromkeys(draft.inputs) if text != draft.example][:most]
    right = [_output(template, draft.parameters, text) for text in inputs]
    slips = [{**draft.parameters, **slip} for slip in draft.slips]
    flawed = [slip for slip in slips if [_output(template, slip, text) for text in inputs] != right]
    if len(inputs) < least or len(set(right)) < _OUTPUTS or not flawed:
        return None
    return [{"stdin": text, "stdout": output} for text, output in zip(inputs, right, strict=True)], flawed
