"""The hidden checks of ludus/RepoRepair-v0: calls of the project's functions, and what the whole project returns."""

from __future__ import annotations

import importlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from . import repair_checks_depot

_BOOKINGS = [
    ["2024-02-27", "cash", 1_000],
    ["2024-02-29", "bank", 50_000],
    ["2024-03-01", "cash", -1_800],
    ["2024-03-01", "cash", 300],
    ["2024-05-31", "cash", 900],
    ["2023-12-31", "fees", -75],
    ["2024-01-01", "fees", 75],
    ["2024-06-01", "bank", -20_000],
]
_INVOICES = [
    [7, "2024-01-31", 10],
    [3, "2024-01-01", 1],
    [9, "2024-01-01", 0],
    [4, "2024-02-01", 5],
    [5, "2024-03-01", -2],
]

_LEDGER: dict[str, list[list[Any]]] = {
    "money.parse": [
        *([text] for text in ("12.34", "-3", "0.5", "1,234.50", "0", "-0.07", "7.", "9.99", "1000000")),
        *([text] for text in ("", "x", "1.234", "1.x", ".5", "-", "1.2.3", "12.3456")),
    ],
    "money.show": [[0], [5], [99], [100], [-1], [-123_450], [100_000_000], [1_005]],
    "money.split": [[100, 3], [100, 1], [0, 4], [5, 5], [3, 7], [101, 2], [10, 0], [-5, 2]],
    "money.percent": [[100, 7], [50, 1], [49, 1], [1_999, 19], [0, 50], [10, 100], [250, 2]],
    "money.with_tax": [[1_000, 19], [1_000, 19, 400], [300, 10, 400], [400, 10, 400], [401, 50, 400], [0, 7]],
    "money.change": [[500, 1], [100, 100], [99, 100], [1_000, 112], [10, 3, [5, 2, 1]], [400, 0], [9, 0, [4, 2]]],
    "calendar.is_leap": [[2024], [2023], [1900], [2000], [2100], [1600], [4]],
    "calendar.days_in": [[2024, 2], [2023, 2], *([2023, month] for month in range(1, 13)), [1900, 2], [2000, 2]],
    "calendar.parse": [
        *([text] for text in ("2024-02-29", "2023-01-01", "2023-12-31", "2023-04-30", "0001-01-01")),
        *([text] for text in ("2023-02-29", "2023-00-10", "2023-13-01", "2023-04-31", "2023-05-00", "2023-05-32")),
    ],
    "calendar.show": [[2024, 2, 9], [7, 12, 31]],
    "calendar.day_of_year": [["2024-12-31"], ["2023-12-31"], ["2023-01-01"], ["2024-03-01"], ["2023-03-01"]],
    "calendar.add_days": [
        *(["2024-02-28", count] for count in (0, 1, 2, 400, -59, -60, -800)),
        *(["2023-12-31", 1], ["2024-01-01", -1], ["2024-03-01", -1], ["2023-11-30", 31], ["2023-01-31", 28]),
        *(["2023-01-01", 365], ["2023-12-01", 30], ["2023-12-01", 31], ["2023-02-01", -31], ["2023-02-01", -32]),
    ],
    "calendar.add_months": [
        *(["2024-01-31", count] for count in (0, 1, 11, 12, 13, -1, -2, -12, -13, 37)),
        *(["2023-10-15", 2], ["2023-12-15", 1], ["2023-10-31", 1], ["2023-11-30", 3]),
    ],
    "calendar.between": [
        *(["2024-01-01", last] for last in ("2024-01-01", "2024-03-01", "2025-01-01", "2023-12-31", "2028-06-05")),
        *(["2023-05-05", "2023-05-04"], ["1899-12-31", "1901-01-01"], ["2023-03-01", "2024-03-01"]),
    ],
    "accounts.balance": [
        *([_BOOKINGS, name] for name in ("cash", "bank", "fees", "none")),
        *([_BOOKINGS, "cash", day] for day in ("2024-02-26", "2024-02-27", "2024-03-01", "2024-12-31")),
    ],
    "accounts.balances": [[_BOOKINGS], [[]], [[["2024-01-01", "b", 1], ["2024-01-01", "a", -1]]]],
    "accounts.lowest": [
        *([_BOOKINGS, name] for name in ("cash", "bank", "fees", "none")),
        [[["2024-01-02", "a", 5], ["2024-01-01", "a", -9], ["2024-01-01", "a", 4], ["2024-01-03", "a", -2]], "a"],
        [[["2024-01-01", "a", -9], ["2024-01-02", "a", -3], ["2024-01-02", "b", -50]], "a"],
        [[["2024-01-01", "a", -9], ["2024-01-01", "a", 10]], "a"],
    ],
    "accounts.interest": [
        [_BOOKINGS, "bank", 5, "2024-02-25", "2024-03-05"],
        [_BOOKINGS, "bank", 3, "2024-02-29", "2024-07-01"],
        [_BOOKINGS, "bank", 100, "2024-03-01", "2024-03-02"],
        [_BOOKINGS, "bank", 5, "2024-03-01", "2024-03-01"],
        [[["2024-01-01", "a", 36_500]], "a", 1, "2024-01-01", "2024-01-08"],
    ],
    "accounts.due": [
        *(
            [_INVOICES, day]
            for day in ("2024-01-31", "2024-02-01", "2024-03-01", "2024-03-02", "2024-03-03", "2025-01-01")
        ),
        [_INVOICES, "2024-02-02", 0],
        [_INVOICES, "2024-02-01", 1],
    ],
    "accounts.by_month": [
        *([_BOOKINGS, name] for name in ("cash", "bank", "fees", "none")),
        [[["2023-11-30", "a", 3], ["2024-02-29", "a", 4], ["2024-02-01", "a", 5], ["2024-01-01", "b", 9]], "a"],
    ],
    "tables.pad": [["abc", 5], ["abc", 5, True], ["abcdef", 5], ["abcde", 5], ["", 2], ["abc", 2], ["abcdef", 4, True]],
    "tables.table": [
        [[]],
        [[["a", "1"], ["bbb", "22"], ["cc", "333"]], [1]],
        [[["a", "x", "1"], ["b", "y", "2"]]],
        [[["name", "n"], ["x", ""]], [0]],
    ],
    "tables.wrap": [
        ["one two three", 7],
        ["one two three", 8],
        ["", 5],
        ["longword a bb ccc", 4],
        ["a b", 3],
        ["a b", 2],
    ],
    "tables.bar": [
        [5, 10],
        [0, 10],
        [10, 10],
        [11, 10],
        [-1, 10],
        [1, 3, 7],
        [3, 0],
        [3, -1, 4],
        [1, 1, 1],
        [9, 10, 5],
    ],
    "tables.numbered": [[["a", "b"]], [["x"] * 10], [["a", "b", "c"], 8], [["a", "b"], 9], [[]]],
}

CALLS = {"ledger": _LEDGER, "depot": repair_checks_depot.CALLS}
"""By project, which is called as its package, the arguments by a function's place in the package."""


def project_files(package: str) -> dict[str, str]:
    """The unbroken project: its package and its visible tests, by path."""
    folder = files(__package__).joinpath("repair_project")
    modules = sorted({path.partition(".")[0] for path in CALLS[package]})
    names = [f"test_{package}.py", *(f"{package}/{name}.py" for name in ("__init__", *modules))]
    return {name: folder.joinpath(name).read_text(encoding="utf-8") for name in names}


@cache
def expected_values(package: str) -> dict[str, list[list[Any]]]:
    """By function: [arguments, True, what it returns] or [arguments, False, the name of what it raises]."""
    known: dict[str, list[list[Any]]] = {}
    for path, calls in CALLS[package].items():
        module, _, name = path.partition(".")
        function = getattr(importlib.import_module(f".repair_project.{package}.{module}", __package__), name)
        known[path] = []
        for arguments in calls:
            try:
                known[path].append([arguments, True, function(*arguments)])
            except ValueError as error:
                known[path].append([arguments, False, type(error).__name__])
    return known


@cache
def hidden_tests(package: str) -> dict[str, str]:
    """The checks as `CodeVerifier` takes them: the candidate is `call(path, *arguments)`."""
    return {"entry_point": "call", "check": _CHECK.format(json.dumps(expected_values(package)))}


def bundle(package: str, sources: dict[str, str]) -> str:
    """One program with a function `call(path, *arguments)` into the package. sources: its modules, by file names."""
    return _BUNDLE.format(package=package, sources=repr(sources))


_CHECK = """
import json
EXPECTED = json.loads({!r})

def check(candidate):
    for path, calls in EXPECTED.items():
        for arguments, returns, expected in calls:
            try:
                got = candidate(path, *arguments)
            except Exception as error:
                assert not returns and type(error).__name__ == expected, f"{{path}} raises {{type(error).__name__}}"
            else:
                assert returns and got == expected, f"{{path}} returns a wrong value"
"""

_BUNDLE = """
import importlib, importlib.abc, importlib.util, sys

SOURCES = {sources}

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        package, _, module = name.partition(".")
        if package == "{package}" and (module or "__init__") + ".py" in SOURCES:
            return importlib.util.spec_from_loader(name, self, is_package=not module)

    def exec_module(self, module):
        name = module.__name__.partition(".")[2] or "__init__"
        exec(compile(SOURCES[name + ".py"], "{package}/" + name + ".py", "exec"), module.__dict__)

sys.meta_path.insert(0, Finder())

def call(path, *arguments):
    module, _, name = path.partition(".")
    return getattr(importlib.import_module("{package}." + module), name)(*arguments)
"""
