"""Heavy tail: environments that now and then take long; what the engine still does behind a barrier and without.

Each turn is answered after a time drawn from a log-normal distribution with a median of 0.2 s and a 99th percentile of
5 s. One Ray worker plays everything with one engine. The learner takes groups and does nothing else, which is the
hardest case: while it learns, what is late may catch up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ludus.agents.engine import Sampling
from ludus.agents.rollout import Arena, Rollout
from ludus.agents.weights import Sent, WeightFolder
from ludus.trainers.config import RolloutConfig
from ludus.trainers.in_flight import InFlight
from ludus.trainers.ray_pool import RayPool
from ludus.trainers.ray_worker import Workplace, load_sent, serve_sent
from ludus.trainers.task_stream import TaskStream

from .measure import in_turns, need, ratio
from .options import Options
from .slow_tools import SLOTS, SlowTool, UnevenEngine
from .step import Silence
from .table import Table, verdict
from .tiny import describe_model, tiny_model

MEDIAN_S, P99_S = 0.2, 5.0
SIGMA = math.log(P99_S / MEDIAN_S) / 2.326
MAX_LENGTH = 640
GROUP_SIZE, BATCH = 8, 8
"""Episodes of a group, and groups of a batch."""
Marks = list[tuple[float, int]]


class HeavyTail(SlowTool):
    """A conversation that is answered after a log-normal time, by episode and turn; at once where median_s is 0."""

    def __init__(self, median_s: float, turns: int) -> None:
        super().__init__(median_s, turns)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Draw how long each turn takes."""
        answer = super().reset(seed=seed, options=options)
        if self.slowest_s:
            rng = np.random.default_rng(seed)
            self.sleeps = rng.lognormal(math.log(self.slowest_s), SIGMA, self.max_turns).tolist()
        return answer


class Bench:
    """A worker, and the ways to keep it busy. Each gives the sampled tokens a second, filling and emptying left out."""

    def __init__(self, options: Options) -> None:
        need("ray")
        self.quick = options.quick
        self.turns, self.longest = (2, 32) if options.quick else (4, 168)
        self.size, self.batch = (2, 2) if options.quick else (GROUP_SIZE, BATCH)
        self.measured = 2 if options.quick else 12
        self.slots = 4 if options.quick else SLOTS
        model, tokenizer = tiny_model(MAX_LENGTH)
        self.median_s = 0.002 if options.quick else MEDIAN_S
        make = partial(arenas, self.median_s, self.turns)
        self.pool = RayPool(
            partial(workplace, make, self.slots),
            make(tokenizer),
            model,
            config=RolloutConfig(placement="ray_async", cpus_per_worker=0.5),
            concurrency=4096,
            weights=WeightFolder(),
            show=Silence(),
        )

    def stream(self, env: str) -> TaskStream:
        """Groups of one environment."""
        return TaskStream([(self.pool.arenas[env], 1.0)], 0, self.size, Sampling(max_tokens=self.longest))

    def barrier(self) -> float:
        """Each batch begins when the last episode of the one before has ended."""
        stream, marks = self.stream("heavy"), [self.mark()]
        for _ in range(max(self.measured // 2, 1)):
            check(self.pool.run(stream.groups(self.batch)))
            marks.append(self.mark())
        return rate(marks)

    def bounded(self, env: str, max_staleness: int) -> float:
        """Asynchronous as a run is, with AReaL's rule: none older than so many batches may be left behind."""
        under_way, stream, marks = InFlight(self.pool, max_staleness), self.stream(env), []
        for version in range(max_staleness + 1 + self.measured):
            check(under_way.play(self.pool, stream, self.batch, version))
            if version >= max_staleness:
                marks.append(self.mark())
        under_way.close()
        return rate(marks)

    def unbounded(self, in_flight: int) -> float:
        """As many groups are under way at any time, however old they get."""
        stream, running, taken = self.stream("heavy"), list[list[int]](), 0
        fill, marks = in_flight // self.size, []
        while taken < fill + self.measured * self.batch:
            running += [self.pool.submit(stream.groups(1)) for _ in range(fill - len(running))]
            tickets = [ticket for group in running for ticket in group]
            self.pool.wait(tickets)
            done = self.pool.take(tickets)
            check(list(done.values()))
            left = [[ticket for ticket in group if ticket not in done] for group in running]
            running = [group for group in left if group]
            taken += len(left) - len(running)
            if taken >= fill:
                marks.append(self.mark())
        self.pool.cancel([ticket for group in running for ticket in group])
        return rate(marks)

    def mark(self) -> tuple[float, int]:
        """Now, and the tokens until now."""
        return time.perf_counter(), self.pool.generated_tokens


def arenas(median_s: float, turns: int, tokenizer: Any) -> dict[str, Arena]:
    """One that answers at once and one that does not."""
    times = {"none": 0.0, "heavy": median_s}
    return {name: Arena.build(name, partial(HeavyTail, value, turns), tokenizer) for name, value in times.items()}


def workplace(make: Callable[[Any], dict[str, Arena]], slots: int, sent: Sent) -> Workplace:
    """The worker's engine, on the weights that were sent, and its arenas."""
    model, (_, tokenizer) = load_sent(sent, "cpu"), tiny_model(MAX_LENGTH)
    engine = UnevenEngine(model, tokenizer, slots=slots, max_length=MAX_LENGTH)
    rollout = Rollout(engine, make(tokenizer), concurrency=4096, step_deadline_s=600.0)
    return Workplace(rollout, partial(serve_sent, engine, model))


def check(episodes: list[Any]) -> None:
    """AssertionError where one failed."""
    failed = [episode.error for episode in episodes if episode.error]
    if failed:
        raise AssertionError(f"an episode failed: {failed[0]}")


def rate(marks: Marks) -> float:
    """Tokens a second from the first mark to the last."""
    (begun, first), (ended, last) = marks[0], marks[-1]
    return (last - first) / (ended - begun)


def run(options: Options) -> list[Table]:
    """One table: no latency, the barrier, asynchronous without and with a bound on staleness."""
    bench = Bench(options)
    batch = bench.size * bench.batch
    free, bounds = ((8,), (1,)) if options.quick else ((256, 512), (3, 7, 11))
    sides: dict[str, Callable[[], float]] = {"none": partial(bench.bounded, "none", 1), "barrier": bench.barrier}
    sides |= {f"free {count}": partial(bench.unbounded, count) for count in free}
    sides |= {f"bound {bound}": partial(bench.bounded, "heavy", bound) for bound in bounds}
    try:
        found = in_turns(sides, options.times(1), warmups=0)
    finally:
        bench.pool.close()
    columns = {"rollout": "", "max_staleness": "d", "episodes in flight": ",d", "tokens/s": ",.0f"}
    columns |= {"share of the engine's": ".2f", "target": ""}
    tail = f"one turn in 100 over {P99_S / MEDIAN_S:g} times that"
    title = f"{bench.slots} slots and environments that take {bench.median_s:g} s in the median, {tail}"
    table = Table(title, columns)
    shares = {name: ratio(sample, found["none"]) for name, sample in found.items()}
    table.add("no latency", 1, 2 * batch, found["none"], None, None)
    share = shares["barrier"]
    under = f"under 0.5: {'met' if share.median < 0.5 else 'MISSED'}"
    table.add("barrier after each batch", None, batch, found["barrier"], share, under)
    for name, staleness, count in [
        *((f"free {count}", None, count) for count in free),
        *((f"bound {bound}", bound, (bound + 1) * batch) for bound in bounds),
    ]:
        share = shares[name]
        table.add("asynchronous", staleness, count, found[name], share, verdict(share, "at least", 0.9))
    table.notes += [
        f"Batches of {bench.batch} groups of {bench.size}; {bench.turns} turns of up to {bench.longest} tokens.",
        "In flight: handed out and not yet taken. With max_staleness no group may be left behind by more batches, so"
        " that one late episode holds up all; without, groups are taken as they come.",
        f"Medians of {options.times(1)} (smallest to largest), in turns, without the first filling.",
        describe_model(tiny_model()[0]),
    ]
    return [table]
