"""Other numbers in a list or enclosed: solutions, sets, ends of intervals, inequalities, unions."""

from __future__ import annotations

import re
from random import Random

from .golds import Golds
from .latex import SQUARE_FREE, frac, root
from .pair import Draft, Drafts, different
from .same_sets import as_inequality, interval, intervals, solutions, unions, written


@different("solution left out")
def dropped_solution(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        out = rng.randrange(len(texts))
        yield Draft(gold, ", ".join(texts[:out] + texts[out + 1 :]), source)


@different("solution too many")
def added_solution(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        more = [*texts, str(rng.randint(31, 60))]
        yield Draft(gold, ", ".join(rng.sample(more, len(more))), source)


@different("solution that is another one")
def other_solution(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        i = rng.randrange(len(texts))
        other = str(rng.randint(31, 60))
        yield Draft(gold, ", ".join([*texts[:i], other, *texts[i + 1 :]]), source)


@different("set with an element too few, too many, or another one")
def other_set(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        if source == "made":
            new = str(rng.randint(31, 60))
            other = rng.choice((texts[1:], [*texts, new], [new, *texts[1:]]))
            yield Draft(f"\\{{{gold}\\}}", f"\\{{{', '.join(other)}\\}}")


@different("± for one sign, or one sign for ±")
def plus_minus(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if "\\pm" in gold.text:
            yield Draft(gold.text, gold.text.replace("\\pm", rng.choice("+-")), gold.source)
    while True:
        a, surd = rng.randint(1, 20), root(rng.randint(1, 5), rng.choice(SQUARE_FREE))
        both, one = f"{a} \\pm {surd}", f"{a} {rng.choice('+-')} {surd}"
        yield rng.choice((Draft(both, one), Draft(one, both), Draft(both, f"-{a} \\pm {surd}")))


@different("further solution beside the only one")
def only_one(golds: Golds, rng: Random) -> Drafts:
    for gold, value in golds.numbers(rng, lambda value: value != 0):
        if "," not in gold.text:
            other = rng.choice((-value, value + 1))
            answers = (
                f"{gold.text}, {frac(other)}",
                f"{frac(other)}, {gold.text}",
                f"\\{{{gold.text}, {frac(other)}\\}}",
            )
            yield Draft(gold.text, rng.choice(answers), gold.source)


@different("end of an interval open for closed")
def open_closed(golds: Golds, rng: Random) -> Drafts:
    for gold, (low, high, left, right), source in intervals(golds, rng):
        flip_left = high is None or (low is not None and rng.random() < 0.5)
        ends = (low, high, left != flip_left, right == flip_left)
        if not (low is not None and high is not None and not ends[2] and not ends[3]):
            yield Draft(gold, written(*ends), source)


@different("end of an interval at another place")
def interval_end(golds: Golds, rng: Random) -> Drafts:
    for gold, (low, high, left, right), source in intervals(golds, rng):
        move_low = high is None or (low is not None and rng.random() < 0.5)
        new_low = low - 1 if move_low and low is not None else low
        new_high = high + 1 if not move_low and high is not None else high
        yield Draft(gold, written(new_low, new_high, left, right), source)


@different("interval on the other side: (-∞, a) for (a, ∞)")
def other_side(golds: Golds, rng: Random) -> Drafts:
    for gold, (low, high, left, right), source in intervals(golds, rng):
        if low is None or high is None:
            yield Draft(gold, written(high, low, right, left), source)


@different("< for ≤, or the other way round")
def strictness(golds: Golds, rng: Random) -> Drafts:
    swap = {"\\le": "<", "<": "\\le", "\\ge": ">", ">": "\\ge"}
    while True:
        text = as_inequality(*interval(rng))
        signs = re.findall(r"\\[lg]e|[<>]", text)
        yield Draft(text, re.sub(r"\\[lg]e|[<>]", lambda found: swap[found[0]], text, count=rng.randint(1, len(signs))))


@different("inequality turned round")
def direction(golds: Golds, rng: Random) -> Drafts:
    swap = {"\\le": "\\ge", "<": ">", "\\ge": "\\le", ">": "<"}
    while True:
        text = as_inequality(*interval(rng))
        yield Draft(text, re.sub(r"\\[lg]e|[<>]", lambda found: swap[found[0]], text))


@different("inequality with another bound, or = for it")
def bound(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, sign = rng.randint(2, 60), rng.choice(("<", ">", "\\le", "\\ge"))
        yield Draft(f"x {sign} {a}", rng.choice((f"x {sign} {a + 1}", f"x {sign} -{a}", f"x = {a}", f"{a} {sign} x")))


@different("intersection for union")
def intersection(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if "\\cup" in gold.text:
            yield Draft(gold.text, gold.text.replace("\\cup", "\\cap"), gold.source)
    while True:
        parts = unions(rng)
        yield Draft(" \\cup ".join(parts), " \\cap ".join(parts))


@different("part of a union left out, or its gap closed")
def union_part(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if "\\cup" in gold.text:
            first, second = gold.text.split(" \\cup ")
            whole = f"{first.split(',')[0]},{second.split(',')[1]}"
            yield Draft(gold.text, rng.choice((first, second, whole)), gold.source)
    while True:
        first, *_, last = parts = unions(rng)
        yield Draft(" \\cup ".join(parts), rng.choice((first, last, f"{first.split(',')[0]},{last.split(',')[1]}")))
