"""`python -m benchmarks.gpu`, from the root of the repository: one GRPO step of a 0.5 B-parameter Qwen2 on one GPU.

It needs torch and transformers, neither a package index nor Ludus installed, and takes under ten minutes.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ..table import append_json
from .source_tree import use_source_tree


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0, or 2 where something is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--cpu-smoke", action="store_true", help="a tiny model on the processor, to see that it works")
    parser.add_argument("--steps", type=int, help="steps that count (default: 3)")
    parser.add_argument("--micro-batch-tokens", type=int, help="tokens in one training pass (default: 4096)")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/gpu.json"), help="where results are appended")
    chosen = parser.parse_args(arguments)
    use_source_tree()
    try:
        import torch

        from .grpo import SMOKE, Size, measure
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        return _fail(f"this benchmark needs a package that is not here: {missing}; install it.")
    if not chosen.cpu_smoke and not torch.cuda.is_available():
        return _fail("PyTorch sees no GPU; run it where there is one, or try --cpu-smoke.")
    size = SMOKE if chosen.cpu_smoke else Size()
    changes = {"steps": chosen.steps, "micro_batch_tokens": chosen.micro_batch_tokens}
    size = replace(size, **{name: value for name, value in changes.items() if value is not None})
    tables = measure(size, torch.device("cpu" if chosen.cpu_smoke else "cuda"))
    for table in tables:
        print(table.text(), flush=True)
    import transformers

    record = {
        "benchmark": "gpu",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": chosen.cpu_smoke,
        "packages": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "tables": [table.to_json() for table in tables],
    }
    append_json(chosen.out, record)
    return 0


def _fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
