"""What starting costs: `import ludus` and `ludus --help`, in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .measure import Sample, in_turns, seconds_of
from .options import Options
from .table import Table, verdict


def run(options: Options) -> list[Table]:
    """The table of both."""
    command = Path(sys.executable).with_name("ludus")
    ludus = [str(command)] if command.is_file() else [sys.executable, "-m", "ludus"]
    commands = {
        "bare Python": [sys.executable, "-c", "pass"],
        "import ludus": [sys.executable, "-c", "import ludus"],
        "ludus --help": [*ludus, "--help"],
    }

    def timed(command: list[str]) -> float:
        return seconds_of(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))

    sides = {name: lambda command=command: timed(command) for name, command in commands.items()}
    found = in_turns(sides, options.times(15))
    table = Table("Starting", {"what": "", "seconds": ".3f", "above bare Python": ".3f", "target": ""})
    bare = found["bare Python"].median
    targets = {"bare Python": None, "import ludus": 0.3, "ludus --help": 0.6}
    for name, sample in found.items():
        target = targets[name]
        above = None if target is None else Sample((sample.median - bare,))
        table.add(name, sample, above, None if target is None else verdict(sample, "at most", target))
    table.notes.append(f"Medians of {options.times(15)} fresh processes each (smallest to largest), in turns.")
    return [table]
