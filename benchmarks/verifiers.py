"""Ludus's verify_math against math-verify: thousands of pairs whose relation is known, and pairs per second.

Both get the same gold and the same response in the same run. Pairs of one type resemble each other; the intervals of
the totals take them for independent, and so say how sure the counts are of these types, not of all mathematics.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from ludus.agents.statistics import wilson_interval

from .math_pairs import find_golds, math_pairs
from .options import REPOSITORY, Options
from .table import Table
from .verifier_table.judges import JUDGES, Said
from .verifier_table.pair import Expected, Pair
from .verifier_table.speed import speed_table

PAGE = REPOSITORY / "docs" / "verifiers.md"
SETS = (
    "same: gold itself, in a box or a sentence",
    "same: gold itself, bare, after ####, in <answer>",
    "same: rewritten",
    "different",
    "different: unit or percent sign",
)
START, END = "<!-- table -->", "<!-- /table -->"


@dataclass(frozen=True)
class Judged:
    """A pair and what both said of it, with Ludus's reason."""

    pair: Pair
    ludus: Said
    peer: Said
    reason: str

    def misjudged(self, side: str) -> bool:
        """Whether a side ("ludus" or "peer") is wrong: same and not judged right, or different and judged right."""
        right = getattr(self, side) is Said.RIGHT
        return {Expected.SAME: not right, Expected.DIFFERENT: right, Expected.AMBIGUOUS: False}[self.pair.expected]


def run(options: Options) -> list[Table]:
    """The totals, a table for each expectation, and the speed."""
    golds = find_golds()
    pairs = math_pairs(golds, enough=2) if options.quick else math_pairs(golds)
    if options.quick:
        pairs = [pair for _, rows in groupby(pairs, key=lambda pair: pair.type) for pair in list(rows)[:2]]
    ludus, peer = (JUDGES[side]() for side in ("Ludus", "math-verify"))
    judged = []
    for pair in pairs:
        said, reason = ludus(pair.gold, pair.response)
        judged.append(Judged(pair, said, peer(pair.gold, pair.response)[0], reason))
    misjudged = options.runs / "verifiers_misjudged.json"
    _write(misjudged, json.dumps([_row(row) for row in judged if _worth_a_look(row)], indent=1, ensure_ascii=False))
    tables = [_totals(judged), *(_types(judged, expected) for expected in Expected), speed_table(golds, options)]
    if not options.quick:
        write_section(PAGE, "\n".join(markdown(table) for table in tables))
    tables[0].notes.append(f"Every misjudged pair is in {misjudged}.")
    return tables


def _totals(judged: Sequence[Judged]) -> Table:
    columns = {"pairs": "", "n": ",d", "Ludus": "", "undecided": "d", "math-verify": ""}
    table = Table("Verifiers: misjudged pairs [95% Wilson interval of the share]", columns)
    sets: dict[str, list[Judged]] = {name: [] for name in SETS}
    for row in judged:
        if row.pair.expected is not Expected.AMBIGUOUS:
            sets[_set(row.pair)].append(row)
    for name, rows in sets.items():
        undecided = sum(row.ludus is Said.UNDECIDED for row in rows)
        table.add(name, len(rows), _share(rows, "ludus"), undecided, _share(rows, "peer"))
    table.notes.append("Misjudged: same and not judged right, or different and judged right. Undecided: Ludus's alone.")
    table.notes.append(
        "math-verify does not claim to read LaTeX that stands bare or an <answer>, and leaves units aside."
    )
    errors = sum(row.ludus is Said.ERROR for row in judged)
    if errors:
        table.notes.append(f"Ludus had {errors} infrastructure errors.")
    return table


def _set(pair: Pair) -> str:
    if pair.expected is Expected.DIFFERENT:
        return SETS[4 if re.match(r"another unit|radians|cents|percent sign", pair.type) else 3]
    if " itself, " in pair.type:
        return SETS[0 if re.search(r"box|The answer is", pair.type) else 1]
    return SETS[2]


def _share(rows: Sequence[Judged], side: str) -> str:
    wrong = sum(row.misjudged(side) for row in rows)
    low, high = wilson_interval(wrong, len(rows))
    return f"{wrong} = {wrong / max(1, len(rows)):.2%} [{low:.2%}, {high:.2%}]"


def _types(judged: Sequence[Judged], expected: Expected) -> Table:
    titles = {
        Expected.SAME: ("Same meaning: pairs not judged right (false negatives)", "misjudged"),
        Expected.DIFFERENT: ("Another meaning: pairs judged right (false positives)", "misjudged"),
        Expected.AMBIGUOUS: ("Arguable: pairs judged right (not counted)", "right"),
    }
    title, counted = titles[expected]
    table = Table(title, {"type": "", "n": "d", "Ludus": "d", "undecided": "d", "math-verify": "d"})
    rows = [row for row in judged if row.pair.expected is expected]
    for name, found in groupby(rows, key=lambda row: row.pair.type):
        group = list(found)
        counts = [
            sum(row.misjudged(side) if counted == "misjudged" else getattr(row, side) is Said.RIGHT for row in group)
            for side in ("ludus", "peer")
        ]
        table.add(name, len(group), counts[0], sum(row.ludus is Said.UNDECIDED for row in group), counts[1])
    return table


def _worth_a_look(row: Judged) -> bool:
    return row.misjudged("ludus") or row.misjudged("peer") or row.ludus in (Said.UNDECIDED, Said.ERROR)


def _row(row: Judged) -> dict[str, str]:
    return {**asdict(row.pair), "ludus": row.ludus, "peer": row.peer, "reason": row.reason}


def markdown(table: Table) -> str:
    """A table as Markdown, its title as a heading."""
    rows = [[format(cell, spec) for cell, spec in zip(row, table.columns.values(), strict=True)] for row in table.rows]
    rows.insert(0, list(table.columns))
    lines = [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows]
    lines.insert(1, f"|{'---|' * len(rows[0])}")
    return "\n".join([f"### {table.title}", "", *lines, "", *table.notes, ""])


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#$~])", r"\\\1", text)


def write_section(page: Path, text: str) -> None:
    """Put the text between the marks of a page, or marks and text at its end where it has none."""
    old = page.read_text(encoding="utf-8") if page.is_file() else f"{START}\n{END}\n"
    if START not in old or END not in old:
        old = f"{old.rstrip()}\n\n{START}\n{END}\n"
    before, rest = old.split(START, 1)
    _write(page, f"{before}{START}\n\n{text}\n{END}{rest.split(END, 1)[1]}")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, file)
