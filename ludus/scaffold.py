"""`ludus new env NAME`: write a distribution with one environment that works at once, to be changed from there."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path
from string import Template

from .sandbox.errors import LudusError

PYPROJECT = Template("""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "A Ludus environment."
requires-python = ">=3.11"
dependencies = ["ludus"]

# Installing this distribution is all it takes: Ludus calls every entry point of this group.
[project.entry-points."gymnasium.envs"]
$module = "$module:register"

[tool.setuptools]
py-modules = ["$module"]
""")

MODULE = Template('''\
"""$env_id: add two numbers. Replace the task and the check by your own."""

import gymnasium
import numpy as np

from ludus.envs import ProceduralSource, Task, TextEnv
from ludus.verifiers import MathVerifier, Verdict


class $cls(TextEnv):
    """Add two numbers."""

    def __init__(self, *, largest: int = 99, seed: int = 0, render_mode: str | None = None) -> None:
        self.largest = largest
        self.verifier = MathVerifier(evaluated=True)  # a number, not a calculation that gives it
        super().__init__(ProceduralSource(self.generate, seed), render_mode=render_mode)

    def generate(self, rng: np.random.Generator, index: int) -> Task:
        """One task. All randomness comes from rng, so that the same (seed, index) is the same task everywhere."""
        a, b = (int(n) for n in rng.integers(1, self.largest + 1, size=2))
        return Task(id=f"$distribution-{index}", prompt=f"What is {a} + {b}?", answer=a + b)

    def verify(self, task: Task, response: str) -> Verdict:
        """Judge the agent's final answer."""
        return self.verifier.verify(task.answer, response)

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """What the agent should write, for supervised training; delete this method if you have no demonstrations."""
        return [str(task.answer + int(rng.random() < flaw_rate))]


def register() -> None:
    """Called by Ludus, through the entry point in pyproject.toml."""
    gymnasium.register("$env_id", entry_point=$cls, disable_env_checker=True, order_enforce=False)
''')

TEST = Template("""\
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ludus.envs import TextEnv, make_env

NAME = "$env_id"


@pytest.fixture
def env() -> TextEnv:
    return make_env(NAME)


def test_it_follows_the_gymnasium_interface() -> None:
    check_env(gymnasium.make(NAME).unwrapped)


def test_a_demonstration_scores_1_and_a_flawed_one_0(env: TextEnv) -> None:
    for flaw_rate, reward in ((0.0, 1.0), (1.0, 0.0)):
        env.reset(options={"index": 3})
        for action in env.demonstrate(env.task, np.random.default_rng(0), flaw_rate):
            step = env.step(action)
        assert step[1] == reward


@pytest.mark.parametrize("response", ["", "I do not know", "1 2 3 4 5", "the answer is right"])
def test_a_response_that_is_no_answer_scores_0(env: TextEnv, response: str) -> None:
    env.reset(options={"index": 3})
    assert env.step(response)[1] == 0.0


def test_the_same_seed_and_index_give_the_same_task() -> None:
    assert make_env(NAME, seed=5).source.task(7) == make_env(NAME, seed=5).source.task(7)
""")

README = Template("""\
# $distribution

An environment for Ludus, `$env_id`.

```
pip install -e .
pytest
ludus envs
```

`$module.py` holds the environment: `generate` makes a task, `verify` judges an answer, `demonstrate` shows one.
""")

_TAKEN_CLASSES = ("MathVerifier", "ProceduralSource", "Task", "TextEnv", "Verdict")
"""What MODULE imports; a class of the same name would hide it."""


class ScaffoldError(LudusError):
    """The new environment cannot be written as asked."""


def new_env(name: str, directory: str | Path = ".") -> Path:
    """Write a plug-in called `name` into the new folder `directory`/`name` and return that folder.

    "word-chess" becomes the distribution word-chess, the module word_chess and the environment word-chess/WordChess-v0.
    Raises ScaffoldError where the name cannot be used or the folder is already there; then nothing is written.
    """
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*", name) or len(name) > 60:
        raise ScaffoldError(
            f"{name!r} cannot name an environment; use lower-case letters, digits and hyphens, such as word-chess."
        )
    folder = Path(directory) / name
    if folder.exists():
        raise ScaffoldError(f"{folder} is already there; choose another name or folder.")
    cls = "".join(part.capitalize() for part in module.split("_"))
    if cls in _TAKEN_CLASSES or keyword.iskeyword(cls) or module in ("conftest", "setup") or module.startswith("test_"):
        raise ScaffoldError(
            f"{name!r} means something else to Python, pytest or the new files; choose another, such as my-{name}."
        )
    if keyword.iskeyword(module) or importlib.util.find_spec(module) is not None:
        raise ScaffoldError(f"{name!r} is already the name of a Python module; choose another, such as my-{name}.")
    words = {"distribution": name.replace("_", "-"), "module": module, "cls": cls}
    words["env_id"] = f"{words['distribution']}/{words['cls']}-v0"
    files = {
        "pyproject.toml": PYPROJECT,
        f"{module}.py": MODULE,
        f"test_{module}.py": TEST,
        "README.md": README,
    }
    try:
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text.substitute(words), encoding="utf-8")
    except OSError as error:
        raise ScaffoldError(f"Cannot write {folder}: {error.strerror}; choose a folder that can be written.") from error
    return folder
