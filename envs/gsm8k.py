"""GSM8K: where its files are, how a row is read, and ludus/GSM8K-v0, the whole problem.

A solution marks each calculation as <<expression=value>> and ends with "#### answer". Source: arXiv:2110.14168.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from ..verifiers.extraction import Rule
from ..verifiers.math.verifier import MathVerifier
from ..verifiers.numbers import format_number, parse_number
from ..verifiers.verdict import Verdict
from .calculator import calculator, evaluate, how_to_call
from .dataset_folder import dataset_folder, dataset_rows
from .errors import NoDemonstration, TaskError, ToolError
from .source import ListSource
from .split import Split, check_split
from .task import Task
from .text_env import TextEnv
from .tool_call import Dialect, render_call

ANNOTATION = re.compile(r"<<([^<>=]*)=([^<>=]*)>>")
_WRONG_OPERATOR = {"+": "-", "-": "+", "*": "+", "/": "*"}


@dataclass(frozen=True)
class Problem:
    """One row. solution: with its annotations, without the line of the answer. answer: the number after ####."""

    id: str
    question: str
    solution: str
    answer: str


@dataclass(frozen=True)
class Calculation:
    """One annotation of a solution whose expression (without spaces) has exactly the annotated value.

    start, end: character positions of <<…>> in the solution.
    """

    expression: str
    value: Fraction
    start: int
    end: int


def data_folder(data_dir: str | Path | None) -> Path | None:
    """The folder with train.jsonl and test.jsonl, see `dataset_folder`."""
    return dataset_folder("gsm8k", data_dir, "GSM8K's train.jsonl and test.jsonl")


@functools.lru_cache(maxsize=8)
def load_problems(folder: Path | None, split: str) -> tuple[Problem, ...]:
    """Every problem of a split, in the order of the file. Raises TaskError for a row without question or answer."""
    problems = []
    rows = dataset_rows("GSM8K", folder, f"{split}.jsonl", ("openai/gsm8k", "main", split))
    for number, (where, row) in enumerate(rows):
        question, answer = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str):
            raise TaskError(f"{where}: the row needs the texts 'question' and 'answer'; it has {', '.join(row)}.")
        solution, marker, last = answer.rpartition("####")
        value = parse_number(last)
        if not marker or value is None:
            raise TaskError(f"{where}: the answer must end with #### and a number; correct or remove the row.")
        problems.append(Problem(f"gsm8k-{split}-{number}", question, solution.rstrip("\n"), format_number(value)))
    return tuple(problems)


def calculations(solution: str) -> tuple[list[Calculation], int]:
    """The annotations in order, and how many were left out because their expression has not exactly their value."""
    found, skipped = [], 0
    for match in ANNOTATION.finditer(solution):
        expression = re.sub(r"\s", "", match[1])
        value = parse_number(match[2])
        try:
            exact = evaluate(expression)
        except ToolError:
            exact = None
        if value is None or exact != value:
            skipped += 1
        else:
            found.append(Calculation(expression, value, match.start(), match.end()))
    return found, skipped


def without_annotations(text: str) -> str:
    """The text as a reader sees it."""
    return ANNOTATION.sub("", text)


def flawed_expressions(expression: str) -> list[str]:
    """Typical mistakes with a wrong value: the last operator mistaken, the last or the first operand forgotten."""
    right = evaluate(expression)
    parts = re.split(r"(?<=[0-9.)])([-+*/])", expression)
    candidates = []
    if len(parts) >= 3:
        swapped = [*parts[:-2], _WRONG_OPERATOR[parts[-2]], parts[-1]]
        candidates = ["".join(swapped), "".join(parts[:-2]), "".join(parts[2:])]
    wrong = []
    for candidate in candidates:
        try:
            value = evaluate(candidate)
        except ToolError:
            continue
        if value != right:
            wrong.append(candidate)
    return wrong or [f"{expression}+1"]


class GSM8K(TextEnv):
    """Grade-school word problems by people: the whole problem, a calculator, the answer after ####.

    split: "train" (7,473 problems) or "test" (1,319). data_dir: folder with train.jsonl and test.jsonl; by default
    $LUDUS_DATA/gsm8k, a shared/data/gsm8k near the working directory, or the hub's openai/gsm8k. order: where an answer
    may stand, see verifiers.extraction.Rule; add "last" to measure models that do not write ####.
    """

    default_system_prompt = (
        "Solve the problem step by step and calculate with the calculator. "
        "End your last message with #### and the number."
    )

    def __init__(
        self,
        *,
        split: Split = "train",
        data_dir: str | None = None,
        order: Sequence[Rule] = ("hash", "tag", "boxed"),
        dialect: Dialect = "json",
        system_prompt: str | None = None,
        max_turns: int = 12,
        render_mode: Literal["ansi"] | None = None,
    ) -> None:
        check_split(split)
        self.split: Split = split
        problems = load_problems(data_folder(data_dir), split)
        tasks = [Task(p.id, p.question, p.answer, {"solution": p.solution}) for p in problems]
        self.verifier = MathVerifier(order, percent="unit", evaluated=True)
        if system_prompt is None:
            system_prompt = self.default_system_prompt + how_to_call(dialect)
        super().__init__(
            ListSource(tasks),
            tools=(calculator,),
            dialect=dialect,
            system_prompt=system_prompt,
            max_turns=max_turns,
            render_mode=render_mode,
        )

    def verify(self, task: Task, response: str) -> Verdict:
        """CORRECT where the number after #### (or where `order` allows) is the right one."""
        return self.verifier.verify(task.answer, response)

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """The solution's calculations, one call each, then its text; a flawed one ends with a mistaken last step."""
        steps, skipped = calculations(task.data.get("solution", ""))
        if skipped or not steps or steps[-1].value != parse_number(task.answer):
            raise NoDemonstration(f"The solution of {task.id} does not end with a calculation of its answer; skip it.")
        expressions = [step.expression for step in steps]
        flawed = bool(rng.random() < flaw_rate)
        flaws = flawed_expressions(expressions[-1])
        choice = int(rng.integers(len(flaws)))
        text = without_annotations(task.data["solution"])
        closing = f"{text}\n#### {task.answer}"
        if flawed:
            expressions[-1] = flaws[choice]
            closing = f"#### {format_number(evaluate(expressions[-1]))}"
        calls = [render_call(calculator, {"expression": expression}, self.dialect) for expression in expressions]
        return [*calls, closing]
