"""ProgramTemplate: a kind of task of ludus/Programs-v0, a statement with parameters to draw, inputs, and its solution.

Invariant: a solution is a function of the text on standard input and of its parameters alone, and its source needs
nothing of its module but the modules its template names, so that it is also the heart of a whole program.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")
Parameters = dict[str, Any]


class Draw:
    """Random numbers, choices and words."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def number(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def numbers(self, count: int, low: int, high: int) -> list[int]:
        """So many integers from low to high, both included."""
        return [self.number(low, high) for _ in range(count)]

    def pick(self, among: Sequence[Item]) -> Item:
        """One of them."""
        return among[self.number(0, len(among) - 1)]

    def sample(self, among: Sequence[Item], count: int) -> list[Item]:
        """Some of them, each once, in the order they have there."""
        return [among[i] for i in sorted(self.rng.permutation(len(among))[:count].tolist())]

    def word(self, letters: str, low: int, high: int) -> str:
        """From low to high letters."""
        return "".join(self.pick(letters) for _ in range(self.number(low, high)))

    def sentence(self, letters: str) -> str:
        """Some words and marks."""
        words = [self.word(letters, 1, 8) for _ in range(self.number(3, 8))]
        return " ".join(word + self.pick(("", "", "", ",", "!", " 7", "-")) for word in words)


@dataclass(frozen=True)
class Draft:
    """What one draw from a template gave.

    statement: what to read and what to print. parameters: of the solution, plain data; each stands in the statement.
    slips: changes of the parameters, as one makes them who reads the statement without care. example, inputs: texts on
    standard input; the edge cases stand first.
    """

    statement: str
    parameters: Parameters
    slips: tuple[Parameters, ...]
    example: str
    inputs: list[str]


@dataclass(frozen=True)
class ProgramTemplate:
    """One kind of task. level: 1 for one loop, 2 for a rule with cases, 3 for an algorithm.

    solution: from the text on standard input, and the parameters by keyword, to the text to print. modules: what it
    needs.
    """

    name: str
    level: int
    build: Callable[[Draw], Draft]
    solution: Callable[..., str]
    modules: tuple[str, ...]

    def program(self, parameters: Parameters) -> str:
        """The solution as a whole program."""
        imports = "".join(f"import {module}\n" for module in sorted({*self.modules, "sys"}))
        source = inspect.getsource(self.solution).replace(f"def {self.solution.__name__}(", "def solve(", 1)
        arguments = "".join(f", {name}={value!r}" for name, value in parameters.items())
        return f"{imports}\n\n{source}\n\nprint(solve(sys.stdin.read(){arguments}))\n"


PROGRAMS: dict[str, ProgramTemplate] = {}


def template(
    level: int, solution: Callable[..., str], *modules: str
) -> Callable[[Callable[[Draw], Draft]], Callable[[Draw], Draft]]:
    """Register a template under the name of its function."""

    def register(build: Callable[[Draw], Draft]) -> Callable[[Draw], Draft]:
        PROGRAMS[build.__name__] = ProgramTemplate(build.__name__, level, build, solution, modules)
        return build

    return register


def flat(items: Sequence[object]) -> str:
    """Items on one line, with spaces between them."""
    return " ".join(map(str, items)) + "\n"


def piled(items: Sequence[object]) -> str:
    """Items, each on a line of its own."""
    return "".join(f"{item}\n" for item in items)


def listed(items: Sequence[object]) -> str:
    """Items in a sentence: a, b and c."""
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}"


def near(name: str, value: int) -> tuple[Parameters, Parameters]:
    """A number misread by one, in either direction."""
    return {name: value - 1}, {name: value + 1}
