"""The scorecard lists the cheats and the attacks that there are, each with what came of it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cheats import CHEATS, TESTS

from ludus.sandbox.attacks import ATTACKS


def rows_of(repository: Path, part: str) -> list[list[str]]:
    """The cells of a part's rows, without its head."""
    page = (repository / "docs" / "scorecard.md").read_text()
    found = re.search(f"<!-- {part} -->\n(.*?)<!-- end of {part} -->", page, re.DOTALL)
    assert found is not None
    return [line.strip("| ").split(" | ") for line in found[1].splitlines()[2:]]


@pytest.fixture(scope="module")
def scorecard(repository: Path) -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("scorecard", repository / "scripts" / "scorecard.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_lists_every_cheat_and_none_is_paid_for(repository: Path) -> None:
    rows = rows_of(repository, "cheats")
    listed = [(name, tries, forms.split(", ")) for name, tries, forms, *_ in rows]
    assert listed == [(name, cheat.tries, list(cheat.forms)) for name, cheat in CHEATS.items()]
    got = {(row[0], result) for row in rows for result in row[3:] if result != "no reward; twin passes"}
    assert not got


def test_the_page_lists_every_attack_and_all_were_held(repository: Path) -> None:
    *rows, whole = rows_of(repository, "attacks")
    assert [name for row in rows for name in row[2].split("; ")] == [attack.name for attack in ATTACKS]
    assert [int(row[1]) for row in rows] == [len(row[2].split("; ")) for row in rows]
    assert int(whole[1]) == len(ATTACKS)
    assert {result for row in [*rows, whole] for result in row[3:]} == {"all held"}


def test_the_figures_of_the_mutations_fit_each_other(repository: Path) -> None:
    figures = [row[1] for row in rows_of(repository, "mutations")]
    made, judged, caught = (int(figure.replace(",", "")) for figure in figures[:3])
    assert made >= judged >= caught > 0
    assert figures[3].startswith(f"{caught / judged:.3f} [")


def test_each_cheat_says_what_it_tries_on_which_tests() -> None:
    for cheat in CHEATS.values():
        assert cheat.tries and not cheat.tries.endswith(".") and "|" not in cheat.tries
        assert cheat.forms and set(cheat.forms) <= set(TESTS)
    assert not any("|" in attack.name or ";" in attack.name for attack in ATTACKS)


def test_a_part_is_replaced_and_nothing_else(scorecard: ModuleType) -> None:
    page = "before\n<!-- cheats -->\nold\n<!-- end of cheats -->\nafter\n"
    new = scorecard.with_part(page, "cheats", ["new \\1"])
    assert new == "before\n<!-- cheats -->\nnew \\1\n<!-- end of cheats -->\nafter\n"
    with pytest.raises(SystemExit, match="put these two lines"):
        scorecard.with_part("", "cheats", [])


def test_an_unknown_part_is_refused_with_those_there_are(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, repository / "scripts" / "scorecard.py", "cheat"], capture_output=True, text=True
    )
    assert done.returncode != 0 and "choose from cheats, attacks, mutations" in done.stderr
