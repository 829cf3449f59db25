"""Speed: pairs per second of both verifiers in one process each and with two workers, on pairs they never saw before.

Each side works in processes of its own, so that neither finds what the other left in sympy's caches; each repetition
has pairs of its own, so that no cache decides. Half of the pairs are right.
"""

from __future__ import annotations

import functools
import multiprocessing
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from itertools import count
from random import Random

from ..measure import in_turns, ratio, seconds_of
from ..options import Options
from ..table import Table
from .golds import Golds
from .judges import JUDGES, Judge, Said
from .latex import SQUARE_FREE, root
from .pair import FRAME

Pairs = list[tuple[str, str]]


def integers(golds: Golds, rng: Random, number: int) -> Pairs:
    """Integers of up to 15 digits."""
    values = [rng.randint(-(10 ** (1 + i % 15)), 10 ** (1 + i % 15)) for i in range(number)]
    return [(str(value), FRAME.format(value + i % 2)) for i, value in enumerate(values)]


def fractions_with_roots(golds: Golds, rng: Random, number: int) -> Pairs:
    """(a/b)sqrt(c) against the same with the root in the denominator, or with another radicand."""
    pairs = []
    for i in range(number):
        value, radicand = Fraction(rng.randint(1, 9999), rng.randint(2, 999)), rng.choice(SQUARE_FREE)
        a, b = value.numerator * radicand, value.denominator
        other = radicand + i % 2
        pairs.append((root(value, radicand), FRAME.format(f"\\frac{{{a}}}{{{b}\\sqrt{{{other}}}}}")))
    return pairs


def math_500(golds: Golds, rng: Random, number: int) -> Pairs:
    """MATH-500's golds against themselves or another one, with digits put before one of their numbers.

    The digits 1 and 2 are valid in every base of the golds, and make each gold a new one of the same shape.
    """
    rows = rng.choices(golds.math, k=number + 1)
    fresh = ["".join(rng.choices("12", k=6)) for _ in rows]
    plain = r"(?<![\d_^{,!.])(?<!frac)(?<!frac )(\d)"
    texts = [re.sub(plain, rf"{digits}\1", row.text, count=1) for row, digits in zip(rows, fresh, strict=True)]
    return [(texts[i], FRAME.format(texts[i + i % 2])) for i in range(number)]


Workload = Callable[[Golds, Random, int], Pairs]
Call = Callable[[Pairs], float]
"""Judges the pairs; the seconds that it took."""
WORKLOADS: dict[str, tuple[Workload, int]] = {
    "integers": (integers, 2000),
    "fractions with roots": (fractions_with_roots, 400),
    "MATH-500 golds": (math_500, 1000),
}
"""Each with the pairs of a turn."""


def speed_table(golds: Golds, options: Options) -> Table:
    """The table of all workloads, in one process and with two workers."""
    columns = {"pairs": "", "of a turn": ",d", "processes": "d"}
    columns |= {"Ludus, pairs/s": ",.0f", "math-verify, pairs/s": ",.0f", "ratio": ".1f"}
    table = Table("Speed of verifiers: pairs per second", columns)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as ludus, ProcessPoolExecutor(1, spawn) as peer, spawn.Pool(2) as peers:
        calls: dict[int, dict[str, Call]] = {
            1: {
                "ludus": lambda pairs: ludus.submit(judge_all, "Ludus", pairs).result(),
                "peer": lambda pairs: peer.submit(judge_all, "math-verify", pairs).result(),
            },
            2: {
                "ludus": lambda pairs: ludus.submit(judge_many, pairs).result(),
                "peer": lambda pairs: seconds_of(lambda: peers.map(peer_said, pairs, max(1, len(pairs) // 8))),
            },
        }
        for name, (workload, full) in WORKLOADS.items():
            number = 10 if options.quick else full
            turns = _turns(name, workload, golds, number)
            for processes, sides in calls.items():
                rates = {side: functools.partial(_rate, call, turns) for side, call in sides.items()}
                found = in_turns(rates, options.times(7), warmups=2)
                table.add(name, number, processes, found["ludus"], found["peer"], ratio(found["ludus"], found["peer"]))
    table.notes.append(f"Medians of {options.times(7)} turns (smallest to largest) after two of warm-up.")
    table.notes.append("Two workers: verify_math_many(pairs, workers=2), and a pool of two processes that maps chunks.")
    return table


def _turns(name: str, workload: Workload, golds: Golds, number: int) -> Iterator[Pairs]:
    """Pairs for one turn after the other, all of them new."""
    for turn in count():
        yield workload(golds, Random(f"{name}/{turn}"), number)


def _rate(call: Call, turns: Iterator[Pairs]) -> float:
    pairs = next(turns)
    return len(pairs) / call(pairs)


@functools.cache
def _judge(side: str) -> Judge:
    return JUDGES[side]()


def judge_all(side: str, pairs: Pairs) -> float:
    """Judge the pairs one after the other in this process; the seconds that it took."""
    judge = _judge(side)
    return seconds_of(lambda: [judge(*pair) for pair in pairs])


def judge_many(pairs: Pairs) -> float:
    """Judge the pairs by Ludus with two workers; the seconds that it took."""
    from ludus.verifiers import verify_math_many

    return seconds_of(lambda: verify_math_many(pairs, workers=2))


def peer_said(pair: tuple[str, str]) -> Said:
    """What the peer says of a pair, in this process."""
    return _judge("math-verify")(*pair)[0]
