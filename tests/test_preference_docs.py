"""The examples of docs/preferences.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ludus.recipe import make_recipe
from ludus.yaml_core import parse

PAGE = Path(__file__).resolve().parent.parent / "docs" / "preferences.md"
RECIPE = {"name": "a", "model": {"path": "m"}, "envs": [{"name": "e"}]}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_sections_for_recipes_load() -> None:
    found = [make_recipe({**RECIPE, **parse(text)}, "docs") for text in blocks("yaml")]
    assert [recipe.preference is not None and recipe.preference.path for recipe in found] == ["pairs.jsonl", None]


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks("python")), {"__name__": "example"})  # noqa: S102
    accuracy, *_, verdict = capsys.readouterr().out.splitlines()
    assert float(accuracy) > 0.9
    assert "mean less 1 deviations of 2 reward models" in verdict
