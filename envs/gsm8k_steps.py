"""ludus/GSM8KSteps-v0: one calculation of a human-written GSM8K solution at a time.

Invariant: the context holds nothing of the annotation <<expression=value>> that it stops at, and CORRECT needs both
parts: a calculator call with exactly the annotated value, and that value as the answer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..verifiers.extraction import STRICT, Rule
from ..verifiers.math.verifier import MathVerifier
from ..verifiers.numbers import format_number, parse_number
from ..verifiers.verdict import Outcome, Verdict
from .calculator import calculator, evaluate, how_to_call
from .errors import EnvError, NoDemonstration, TaskError, ToolError, did_you_mean
from .gsm8k import (
    Calculation,
    Problem,
    calculations,
    data_folder,
    flawed_expressions,
    load_problems,
    without_annotations,
)
from .split import Split, check_split
from .task import Task
from .text_env import TextEnv
from .tool_call import Dialect, render_call

Setting = Literal["copy", "infer"]

_OPERATOR = re.compile(r"[0-9.)%]\s*(?:[-+*/^xX×·÷−–]|\*\*)")
_NUMBER = r"(?:[0-9][0-9,]*\.?[0-9]*|\.[0-9]+)%?"
_EXPRESSION = re.compile(rf"[( ]*-? ?{_NUMBER}[) ]*(?:[-+*/] ?[( ]*-? ?{_NUMBER}[) ]*)*")


@functools.lru_cache(maxsize=8)
def _steps(folder: Path | None, split: str) -> tuple[tuple[tuple[Problem, int, Calculation], ...], int]:
    """((problem, position among its calculations, calculation), …) and how many annotations were left out."""
    found, skipped = [], 0
    for problem in load_problems(folder, split):
        steps, left_out = calculations(problem.solution)
        skipped += left_out
        found += [(problem, position, step) for position, step in enumerate(steps)]
    return tuple(found), skipped


def cut_solution(solution: str, start: int, setting: Setting) -> str:
    """The solution as a reader sees it, up to the annotation at `start`; its last line is the one to continue.

    infer: the last line is cut before its first digit. Where earlier calculations stand in the same line, it is cut
    before the first digit after the last of them, since the same text cannot ask for two values.
    """
    before = solution[:start]
    if setting == "copy":
        return without_annotations(before)
    line_start = before.rfind("\n") + 1
    annotated = before.rfind(">>", line_start)
    if annotated != -1:
        stated = re.compile(r"[$€£]?\s?[0-9.,]*[0-9]").match(before, annotated + 2)
        line_start = stated.end() if stated else annotated + 2
    digit = re.compile("[0-9]").search(before, line_start)
    return without_annotations(before[: digit.start()] if digit else before)


def last_expression(line: str) -> str | None:
    """The last arithmetic expression in a line, with its units and words removed: the regular-expression baseline."""
    text = re.sub(r"(?<=[0-9\s)])[xX×](?=[\s0-9($])", "*", line).replace("÷", "/")
    text = re.sub("[–−]", "-", text)
    text = re.sub(r"[$€£]|/\s*[A-Za-z]+", "", text)
    text = re.sub(r"[A-Za-z]+(?:[-'’][A-Za-z]+)*", "", text)
    text = re.sub(r"\s+", " ", text)
    found = _EXPRESSION.findall(text)
    if not found:
        return None
    expression: str = found[-1].strip().rstrip(",. ")
    for _ in range(expression.count(")") - expression.count("(")):
        expression = "".join(expression.rsplit(")", 1))
    for _ in range(expression.count("(") - expression.count(")")):
        expression = expression.replace("(", "", 1)
    return expression.replace("()", "")


class StepSource:
    """Tasks made when they are asked for; the steps themselves are shared by all sources of a split."""

    def __init__(self, folder: Path | None, split: Split, setting: Setting, context_chars: int | None) -> None:
        self.steps, self.skipped = _steps(folder, split)
        self.size: int | None = len(self.steps)
        self.setting: Setting = setting
        self.context_chars = context_chars

    def task(self, index: int) -> Task:
        """The task at `index`."""
        if not 0 <= index < len(self.steps):
            raise TaskError(f"GSM8KSteps has no task {index}; ask for an index from 0 to {len(self.steps) - 1}.")
        problem, position, step = self.steps[index]
        context = f"{problem.question}\n{cut_solution(problem.solution, step.start, self.setting)}"
        if self.context_chars is not None:
            context = context[-self.context_chars :]
        data = {"expression": step.expression, "setting": self.setting}
        return Task(f"{problem.id}-{position}", context, format_number(step.value), data)


class GSM8KSteps(TextEnv):
    """Real human text: call the calculator with the expression that a GSM8K solution needs next, then state the value.

    setting: "copy", the line is cut right before the annotation, so that the expression is usually in sight; "infer",
    it is cut before its first digit. context_chars: keep only so many characters at the end of question and solution.
    23,714 tasks in "train", 4,282 in "test"; 2 annotations of "train" (with "//") are left out because they cannot be
    calculated (`source.skipped`). split, data_dir and order as in GSM8K.
    """

    default_system_prompt = (
        "The solution stops before a result. Calculate that result with the calculator, "
        "then answer with the number alone."
    )

    def __init__(
        self,
        *,
        setting: Setting = "copy",
        split: Split = "train",
        context_chars: int | None = None,
        data_dir: str | None = None,
        order: Sequence[Rule] = STRICT,
        dialect: Dialect = "tag",
        system_prompt: str | None = None,
        max_turns: int = 4,
        render_mode: Literal["ansi"] | None = None,
    ) -> None:
        check_split(split)
        if setting not in ("copy", "infer"):
            raise EnvError(f"Unknown setting {setting!r}.{did_you_mean(str(setting), ('copy', 'infer'))}")
        if context_chars is not None and context_chars < 1:
            raise EnvError(f"context_chars = {context_chars} leaves no context; give 1 or more, or null for all of it.")
        self.split: Split = split
        self.setting: Setting = setting
        self.verifier = MathVerifier(order, units=False, percent="unit", evaluated=True)
        self.steps = StepSource(data_folder(data_dir), split, setting, context_chars)
        if system_prompt is None:
            system_prompt = self.default_system_prompt + how_to_call(dialect)
        super().__init__(
            self.steps,
            tools=(calculator,),
            dialect=dialect,
            system_prompt=system_prompt,
            max_turns=max_turns,
            render_mode=render_mode,
        )

    def verify(self, task: Task, response: str) -> Verdict:
        """CORRECT where the stated value is right and a call of this episode calculated it.

        Where the annotation calculates something, a call that holds a bare number is no calculation.
        """
        stated = self.verifier.verify(task.answer, response)
        value = parse_number(str(task.answer))
        needs_operator = _OPERATOR.search(task.data["expression"]) is not None
        called = [str(call.arguments["expression"]) for call in self.calls if not call.failed]
        right = [text for text in called if evaluate(text) == value and (_OPERATOR.search(text) or not needs_operator)]
        evidence = {
            **stated.evidence,
            "value_right": stated.outcome is Outcome.CORRECT,
            "called": called,
            "call_right": bool(right),
            "expression": task.data["expression"],
        }
        if not right:
            return Verdict.wrong("No calculator call has the right value.", **evidence)
        if stated.outcome is not Outcome.CORRECT:
            return Verdict.wrong(stated.reason, **evidence)
        return Verdict.correct("The calculation and the stated value are right.", **evidence)

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """One call with the annotated expression, then its value; a flawed one has a wrong operator or misses one."""
        expression = task.data.get("expression")
        if expression is None:
            raise NoDemonstration(f"The task {task.id} was not made by GSM8KSteps; it holds no expression to show.")
        flawed = bool(rng.random() < flaw_rate)
        flaws = flawed_expressions(expression)
        choice = int(rng.integers(len(flaws)))
        if flawed:
            expression = flaws[choice]
        return [
            render_call(calculator, {"expression": expression}, self.dialect),
            format_number(evaluate(expression)),
        ]

    def copy_baseline(self) -> float:
        """Share of this split's values that the last arithmetic expression in the line cut for "copy" has.

        Measured: 0.9787 of GSM8K's test split, 0.9817 of train; cruder regular expressions get 0.96 to 0.97 of test.
        """
        right = 0
        for problem, _, step in self.steps.steps:
            line = cut_solution(problem.solution, step.start, "copy").rpartition("\n")[2]
            try:
                right += evaluate(last_expression(line) or "") == step.value
            except ToolError:
                continue
        return right / len(self.steps.steps)

    def baselines(self) -> dict[str, float]:
        """In the setting "copy", the regular expression's score; in "infer" there is nothing to copy."""
        return {"regular expression": self.copy_baseline()} if self.setting == "copy" else {}
