"""What `ludus check NAME` does: find what the name means, check it, and show what came out.

Invariant: whatever is wrong with the name or the pairs is one sentence (CheckInputError); whatever is wrong with the
checked thing is in the report.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from .sandbox.check import LIMITS, check_sandbox
from .sandbox.check_report import CheckReport
from .sandbox.choose import SANDBOXES, open_sandbox
from .sandbox.errors import LudusError
from .verifiers.check import Pair, check_verifier
from .verifiers.verifier import Verifier


class CheckInputError(LudusError):
    """There is nothing that could be checked by that name, or not with those pairs."""


class NamedVerifier:
    """A verifier by where it stands, "module:attribute"; in another process it is imported there again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.verifier = load_verifier(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return (NamedVerifier, (self.name,))

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
        """What the verifier says."""
        return self.verifier.verify(gold, response, prompt=prompt)


def check(
    name: str,
    *,
    pairs: str | Path | None = None,
    tasks: int = 8,
    seed: int = 0,
    judges: bool = True,
    deadline_s: float = 10.0,
    options: dict[str, Any] | None = None,
) -> CheckReport:
    """Check an environment by its registered name, a verifier by its "module:attribute", or a sandbox by its name.

    pairs: for a verifier, a file of JSON lines, see `load_pairs`. tasks, options: for an environment. seed, judges,
    deadline_s: see `check_verifier`. Raises a LudusError where name, pairs or options cannot be used.
    """
    if ":" in name:
        if pairs is None:
            raise CheckInputError(f"{name} is a verifier, which needs right answers; add --pairs FILE.jsonl.")
        if options:
            raise CheckInputError(f"{name} is a verifier, which takes no --set; set it up in its module.")
        found = load_pairs(pairs)
        return check_verifier(NamedVerifier(name), found, judges=judges, deadline_s=deadline_s, seed=seed, name=name)
    if name in SANDBOXES:
        if pairs is not None or options:
            raise CheckInputError(f"{name} is a sandbox, which is attacked as it is; leave --pairs and --set out.")
        with open_sandbox(name, limits=LIMITS) as sandbox:
            return check_sandbox(sandbox)
    if pairs is not None:
        raise CheckInputError(f"{name} is an environment, whose tasks are taken; leave --pairs out.")
    from .envs.check_env import check_env

    return check_env(name, tasks=tasks, seed=seed, deadline_s=deadline_s, judges=judges, options=options)


def load_verifier(name: str) -> Verifier:
    """The verifier at "module:attribute", or what a class or function there makes without arguments."""
    from .envs.errors import did_you_mean
    from .envs.text_env import TextEnv

    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise CheckInputError(f"{name!r} is no place in a module; write module:attribute, such as my.module:verifier.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise CheckInputError(
                f"There is no module {error.name}; run the command where it lies, or install it."
            ) from None
        raise CheckInputError(f"{module_name} cannot be imported ({_words(error)}); correct it.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [each for each in vars(found) if not each.startswith("_")] if hasattr(found, "__dict__") else []
            raise CheckInputError(f"{module_name} has no {attribute}.{did_you_mean(part, public)}")
        found = getattr(found, part)
    if callable(found) and (isinstance(found, type) or not isinstance(found, Verifier)):
        try:
            found = found()
        except LudusError:
            raise
        except Exception as error:
            raise CheckInputError(
                f"{name} cannot be called without arguments ({_words(error)}); name a verifier, or what makes one."
            ) from error
    if isinstance(found, TextEnv):
        raise CheckInputError(f"{name} is an environment; register it with Gymnasium and check it by its id.")
    if not isinstance(found, Verifier):
        raise CheckInputError(f"{name} is no verifier; it needs a method verify(gold, response, *, prompt='').")
    return found


def load_pairs(path: str | Path) -> list[Pair]:
    """(gold, response, prompt) of each line {"gold": …, "response": …, "prompt": …}.

    Without a response, the gold answer is taken for one: a text as it is, anything else as JSON.
    """
    found: list[Pair] = []
    for where, row in _json_lines(Path(path)):
        if not isinstance(row, dict) or "gold" not in row:
            raise CheckInputError(f'{where}: the line is no object with the field "gold"; write {{"gold": …}}.')
        unknown = [key for key in row if key not in ("gold", "response", "prompt")]
        if unknown:
            raise CheckInputError(f"{where}: the field {unknown[0]!r} is not known; there are gold, response, prompt.")
        gold = row["gold"]
        response = row.get("response", gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False))
        prompt = row.get("prompt", "")
        if not isinstance(response, str) or not isinstance(prompt, str):
            raise CheckInputError(f"{where}: response and prompt must be texts; put them in quotes.")
        found.append((gold, response, prompt))
    if not found:
        raise CheckInputError(f'{path} has no lines; write one {{"gold": …, "response": …}} per line.')
    return found


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise CheckInputError(f"{path} does not exist; give a file of JSON lines.") from None
    except IsADirectoryError:
        raise CheckInputError(f"{path} is a folder; give a file of JSON lines.") from None
    except UnicodeDecodeError as error:
        raise CheckInputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise CheckInputError(f"{path} cannot be read ({error.strerror}); give a file of JSON lines.") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise CheckInputError(f"{path}:{number}: the line is not JSON ({error}); correct it.") from None


def show_report(report: CheckReport, out: TextIO) -> None:
    """Write a table on a terminal, elsewhere plain lines."""
    if not out.isatty():
        print(report, file=out)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"passed": "green", "failed": "bold red", "skipped": "yellow"}
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in report.rows:
        lines = [
            row.what,
            *([f"fix: {row.fix}"] if row.fix else []),
            *([f"example: {row.example}"] if row.example else []),
        ]
        table.add_row(Text(row.status, styles[row.status]), Text(row.name), Text("\n".join(lines)))
    console = Console(file=out, highlight=False)
    console.print(table)
    console.print(Text(report.summary, "green" if report.passed else "bold red"))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
