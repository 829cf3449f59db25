"""ludus/WordMath-v0: procedural word problems to be solved with a calculator over several turns.

Invariant: the train and test splits share neither a number nor a first name: every run of digits in a prompt, read as
an integer, belongs to its split (`word_math_templates.belongs`, tests/test_word_math.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..verifiers.extraction import STRICT, Rule
from ..verifiers.math.verifier import MathVerifier
from ..verifiers.numbers import format_number
from ..verifiers.verdict import Verdict
from .calculator import calculator, evaluate, how_to_call
from .errors import EnvError, NoDemonstration, did_you_mean
from .options import check_list
from .source import ProceduralSource
from .task import Task
from .text_env import TextEnv
from .tool_call import Dialect, render_call
from .word_math_templates import TEMPLATES, Draw, Split, solve

_TRIES = 2_000


class WordMath(TextEnv):
    """Procedural word problems of one to three operations, solved with a calculator; answers are exact rationals.

    split: "train" or "test". seed: of the task stream. templates: names to take (None for all, see TEMPLATES).
    levels: 1, 2, 3, to be taken (None for all). order: where an answer may stand, see verifiers.extraction.Rule; by
    default it is the bare number, also after ####, in <answer> tags or in \\boxed{}. Demonstrations call the calculator
    once per operation; a flawed one makes the typical mistake of its template.
    """

    default_system_prompt = (
        "Solve the problem with the calculator, one step at a time; then answer with the number alone."
    )

    def __init__(
        self,
        *,
        split: Split = "train",
        seed: int = 0,
        templates: Sequence[str] | None = None,
        levels: Sequence[int] | None = None,
        order: Sequence[Rule] = STRICT,
        dialect: Dialect = "tag",
        system_prompt: str | None = None,
        max_turns: int = 6,
        render_mode: Literal["ansi"] | None = None,
    ) -> None:
        if split not in ("train", "test"):
            raise EnvError(f"Unknown split {split!r}.{did_you_mean(str(split), ('train', 'test'))}")
        check_list("templates", templates)
        check_list("levels", levels)
        for name in templates or ():
            if not isinstance(name, str) or name not in TEMPLATES:
                raise EnvError(f"Unknown template {name!r}.{did_you_mean(str(name), TEMPLATES)}")
        known = sorted({template.level for template in TEMPLATES.values()})
        for level in levels or ():
            if level not in known:
                raise EnvError(f"No template has the levels {levels!r:.100}; the levels are {known}.")
        self.split: Split = split
        self.templates = tuple(
            template
            for template in TEMPLATES.values()
            if (templates is None or template.name in templates) and (levels is None or template.level in levels)
        )
        if not self.templates:
            if templates is None:
                raise EnvError(f"No template has the levels {levels!r}; the levels are {known}.")
            raise EnvError(f"No template has the levels {levels!r} and the names {templates!r}; leave one out.")
        self.seed = seed
        self.verifier = MathVerifier(order, units=False, percent="unit", evaluated=True)
        if system_prompt is None:
            system_prompt = self.default_system_prompt + how_to_call(dialect)
        super().__init__(
            ProceduralSource(self._generate, seed),
            tools=(calculator,),
            dialect=dialect,
            system_prompt=system_prompt,
            max_turns=max_turns,
            render_mode=render_mode,
        )

    def _generate(self, rng: np.random.Generator, index: int) -> Task:
        template = self.templates[int(rng.integers(len(self.templates)))]
        for _ in range(_TRIES):
            problem = template.build(Draw(rng, self.split))
            solution = solve(problem.steps)
            flaws = [solve(steps) for steps in problem.flawed]
            if solution is None or not solution.fits or (problem.whole and solution.value.denominator != 1):
                continue
            wrong = [flaw.expressions for flaw in flaws if flaw is not None and flaw.value != solution.value]
            if wrong:
                break
        else:
            raise EnvError(f"The template {template.name} found no fitting numbers; widen the ranges it draws from.")
        data = {
            "template": template.name,
            "level": template.level,
            "operands": [str(operand) for operand in problem.operands],
            "expressions": list(solution.expressions),
            "flawed": [list(expressions) for expressions in wrong],
        }
        name = f"wordmath-{self.split}-{self.seed}-{index}"
        return Task(name, problem.text, format_number(solution.value), data)

    def verify(self, task: Task, response: str) -> Verdict:
        """CORRECT where the final answer is exactly the one right number."""
        return self.verifier.verify(task.answer, response)

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """One calculator call per operation, then the number; with probability flaw_rate a typical mistake."""
        if "expressions" not in task.data:
            raise NoDemonstration(f"The task {task.id} was not made by WordMath; it holds no steps to demonstrate.")
        flawed = bool(rng.random() < flaw_rate)
        choice = int(rng.integers(len(task.data["flawed"])))
        expressions = task.data["flawed"][choice] if flawed else task.data["expressions"]
        calls = [render_call(calculator, {"expression": text}, self.dialect) for text in expressions]
        return [*calls, format_number(evaluate(expressions[-1]))]
