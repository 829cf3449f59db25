"""The same calls again: one after the other, from several threads, and in numbers, to see what is kept of them.

Invariant: only verdicts are compared, as JSON text, so that a difference in any word of them is found.
"""

from __future__ import annotations

import gc
import random
import threading
import time
import tracemalloc
from collections.abc import Sequence

from ..sandbox.check_report import CheckRow
from .check_rows import Found
from .observation import Asker, Call, Observation, observe
from .verifier import Verifier

THREADS = 8
MAX_THREADED = 64
"""Calls that each thread makes."""
MIN_GROWTH_CALLS, MAX_GROWTH_CALLS = 30, 300
GROWTH_S = 2.0
"""Longest time for one half of the calls that look for a leak."""
GROWTH_CHARS = 20_000
"""Length of their responses; half of it kept for each call is a leak."""
MAX_KEPT_BYTES = 1 << 20
"""What may be kept in all."""


def compare(check: str, first: Sequence[Found], again: Sequence[Observation], passed: str, fix: str) -> CheckRow:
    """A row about calls that were made twice and must have said the same."""
    pairs = list(zip(first, again, strict=True))
    broken = [((call, before), after) for (call, before), after in pairs if before.said != after.said]
    if not pairs:
        return CheckRow(check, "skipped", "No call came back with a proper verdict.")
    if not broken:
        return CheckRow(check, "passed", f"{len(pairs)} {passed}.")
    (call, before), after = min(broken, key=lambda pair: len(pair[0][0].response))
    said = f"{before.said[:300]} and then {after.said[:300]}" if before.outcome == after.outcome else ""
    example = f"{call.shown}: {said or f'{before.shown} and then {after.shown}'}"
    return CheckRow(check, "failed", f"{len(broken)} of {len(pairs)} calls gave another verdict.", fix, example)


def repeat_alone(asker: Asker, found: Sequence[Found], seconds: float, rng: random.Random) -> CheckRow:
    """The same calls in another order."""
    shuffled = rng.sample(found, len(found))
    again = [asker.ask(call, seconds) for call, _ in shuffled]
    fix = "take randomness and clocks out, and keep nothing from one call to the next; seed what has to be drawn."
    return compare("deterministic", shuffled, again, "calls, made again in another order, gave the same verdicts", fix)


def repeat_in_threads(verifier: Verifier, found: Sequence[Found], seconds: float, rng: random.Random) -> CheckRow:
    """The same calls from several threads at once; `seconds` for all of them."""
    chosen = rng.sample(found, min(len(found), MAX_THREADED))
    orders = [rng.sample(chosen, len(chosen)) for _ in range(THREADS)]
    results: list[list[Observation]] = [[] for _ in orders]
    start = threading.Barrier(THREADS)

    def work(order: Sequence[Found], result: list[Observation]) -> None:
        start.wait()
        for call, _ in order:
            result.append(observe(verifier, call))

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in zip(orders, results, strict=True)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    fix = "keep what belongs to one call in local variables, not in the verifier, or guard it with a lock."
    if any(thread.is_alive() for thread in threads):
        what = f"{THREADS} threads at once were not done within {seconds:.0f} s."
        return CheckRow("threads", "failed", what, "let no lock be held over a call, and no thread wait for another.")
    pairs = [pair for order in orders for pair in order]
    said = [observation for result in results for observation in result]
    return compare("threads", pairs, said, f"calls from {THREADS} threads at once gave the same verdicts", fix)


def look_for_leaks(asker: Asker, call: Call, seconds: float) -> CheckRow:
    """Whether memory grows with the number of different responses, after a first half that may fill caches."""
    number = 0
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        sizes = []
        count, end = MAX_GROWTH_CALLS, time.monotonic() + GROWTH_S
        for half in range(2):
            for done in range(count):
                number += 1
                text = f"{number} ".ljust(GROWTH_CHARS, "ab \n"[number % 4])
                asker.ask(Call("memory", call.gold, f"{text}\n{call.response}", call.prompt), seconds)
                if half == 0 and time.monotonic() > end:
                    count = done + 1
                    break
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
            if count < MIN_GROWTH_CALLS:
                what = f"{MIN_GROWTH_CALLS} calls take longer than {GROWTH_S:g} s."
                return CheckRow("memory", "skipped", what)
    finally:
        if not tracing:
            tracemalloc.stop()
    grown = sizes[1] - sizes[0]
    if grown <= max(MAX_KEPT_BYTES, count * GROWTH_CHARS // 2):
        return CheckRow("memory", "passed", f"{count} calls with different responses kept no memory.")
    what = f"{count} calls with different responses of {GROWTH_CHARS:,} characters kept {grown / 2**20:.1f} MiB."
    return CheckRow("memory", "failed", what, "keep nothing of a response; give caches a size.")
