"""Pairs of a right answer and a response of which it is known whether they mean the same.

Invariant: the same golds and seed give the same pairs in every process and under every PYTHONHASHSEED, and each claim
holds by construction or by exact calculation. What a type does stands in benchmarks/verifier_table/.
"""

from __future__ import annotations

from pathlib import Path

from ludus.envs.gsm8k import data_folder

from .measure import BenchmarkError
from .verifier_table import (  # noqa: F401
    arguable,
    changed_algebra,
    changed_answers,
    changed_numbers,
    changed_responses,
    changed_sets,
    same_algebra,
    same_answers,
    same_notation,
    same_numbers,
    same_responses,
    same_sets,
    traps,
)
from .verifier_table.golds import Golds, read_golds
from .verifier_table.pair import ENOUGH, TYPES, Expected, Pair

ORDER = {expected: place for place, expected in enumerate(Expected)}


def find_golds(folder: Path | None = None) -> Golds:
    """The golds below a folder with gsm8k/ and math500/; by default found as the environments find GSM8K."""
    gsm8k = data_folder(None) if folder is None else folder / "gsm8k"
    try:
        if gsm8k is None:
            raise FileNotFoundError("gsm8k/test.jsonl")
        return read_golds(gsm8k.parent)
    except OSError as error:
        raise BenchmarkError(
            f"The pairs need gsm8k/test.jsonl and math500/test.jsonl; set LUDUS_DATA to the folder of both ({error})."
        ) from None


def math_pairs(golds: Golds, seed: int = 0, enough: int = ENOUGH) -> list[Pair]:
    """All pairs, type by type: gold against itself, the same, another answer, what one may argue about.

    enough: pairs of a type at most; gold against itself has them all.
    """
    types = sorted(TYPES.values(), key=lambda kind: (ORDER[kind.expected], not kind.whole))
    return [pair for kind in types for pair in kind.pairs(golds, seed, enough)]
