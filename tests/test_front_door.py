"""`import ludus`: light, complete, and the same names whichever way they are reached."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ludus

HEAVY = ["torch", "transformers", "gymnasium", "pydantic", "numpy", "yaml", "rich", "jinja2", "vllm", "ray", "sympy"]


def loaded_after(statement: str) -> list[str]:
    """Which heavy libraries a fresh interpreter has imported after a statement."""
    program = f"import sys\n{statement}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_ludus_loads_nothing_heavy() -> None:
    assert loaded_after("import ludus") == []


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    assert loaded_after("import ludus.cli") == []


def test_reading_a_recipe_loads_no_torch() -> None:
    assert not {"torch", "transformers", "gymnasium"} & set(loaded_after("import ludus; ludus.load_recipe"))


@pytest.mark.parametrize("name", ludus.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ludus, name) is getattr(ludus, name)
    assert name in dir(ludus)


def test_every_name_for_type_checkers_is_public_and_the_other_way_round() -> None:
    assert {name for names in ludus._HOMES.values() for name in names} | {"__version__"} == set(ludus.__all__)


def test_a_public_name_is_the_one_of_its_room() -> None:
    from ludus.envs.task import Task
    from ludus.verifiers.verdict import Verdict

    assert ludus.Task is Task and ludus.Verdict is Verdict


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ludus' has no attribute 'trian'"):
        _ = ludus.trian


def test_star_import_brings_the_public_names() -> None:
    space: dict[str, object] = {}
    exec("from ludus import *", space)  # noqa: S102 - what a user types in a notebook
    assert {"TextEnv", "Task", "tool", "Verdict", "load_recipe", "train_recipe"} <= space.keys()
