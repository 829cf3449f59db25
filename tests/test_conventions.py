"""docs/conventions.md prints what the code gives, and names options that there are."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "conventions.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|text)\n(.*?)```", PAGE, re.DOTALL)


def test_the_numbers_of_the_page_are_those_of_its_code() -> None:
    names: dict[str, Any] = {"__name__": "example"}
    said, compared = "", 0
    for language, text in BLOCKS:
        if language == "text":
            assert said == text
            said, compared = "", compared + 1
            continue
        assert said == "", f"no numbers stand behind the code before {text!r}"
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(text, names)  # noqa: S102
        said = out.getvalue()
    assert said == "" and compared >= 20


def test_the_options_of_the_page_exist() -> None:
    """Whatever stands as `name: value` is an option of a preset, or a setting of a recipe."""
    import inspect

    from ludus.trainers.algorithms import ALGORITHMS
    from ludus.trainers.algorithms.variations import VARIATIONS
    from ludus.trainers.config import CriticConfig, PolicyConfig, PreferenceConfig

    known = {"like", *VARIATIONS, "policy.options.like", "policy.critic.optimizer.lr"}
    known |= {option for build in ALGORITHMS.values() for option in inspect.signature(build).parameters}
    sections = {"policy": PolicyConfig, "policy.critic": CriticConfig, "preference": PreferenceConfig}
    known |= {f"{section}.{field}" for section, config in sections.items() for field in config.model_fields}
    words = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    named = {*re.findall(r"`([a-z0-9_.]+):\s", words), *re.findall(r"`((?:policy|preference)\.[a-z_.]+)[:`]", words)}
    assert len(named) > 15
    assert named <= known, sorted(named - known)


@pytest.mark.parametrize("word", ["TRL", "verl", "MiniMax", "OpenRLHF", "SkyRL"])
def test_the_libraries_with_other_conventions_are_named(word: str) -> None:
    assert word in PAGE
