"""Options: what the command line says to every benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Options:
    """How to run.

    quick: the smallest sizes, to see that it works; the numbers mean nothing. repetitions: of each measurement; None
    leaves it to the benchmark. seeds, jobs (runs at a time, one thread each if several), overrides (of recipes), and
    fresh (forget finished runs) are for benchmarks that train. runs: where those keep their run folders.
    """

    quick: bool = False
    repetitions: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    jobs: int = 1
    overrides: tuple[str, ...] = ()
    fresh: bool = False
    runs: Path = Path("runs/bench")

    def times(self, full: int) -> int:
        """How often to measure: as told, else twice where quick and `full` times where not."""
        return self.repetitions or (2 if self.quick else full)
