"""ChainFolder: what a chain leaves behind.

    chain.yaml  start/  stages/01-NAME/ (a run folder each)  report.html

Invariant: a stage is finished where its folder says so, which is written after everything else of it
(tests/test_chain.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO

from .chain import Chain, Stage, make_chain
from .report_data import EnvScores, env_scores
from .run_folder import CHAIN, STAGES, RunFolderError, free_name, lock_folder, make_place, read_metrics
from .whole_file import write_whole
from .yaml_core import YamlError, parse

FINISHED = ".finished"


class ChainFolder:
    """A chain on disk. `ChainFolder(path)` reads; `create` and `resume` also hold the folder's lock."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / CHAIN
        try:
            data = parse(file.read_text(encoding="utf-8"))
        except OSError:
            raise RunFolderError(f"{path} is not the folder of a chain: it has no {CHAIN}.") from None
        except (UnicodeDecodeError, YamlError) as error:
            raise RunFolderError(f"{file}: {error}; correct the YAML.") from None
        if not isinstance(data, dict) or "chain" not in data:
            raise RunFolderError(f"{file} is no section with a list `chain`; restore it.")
        self.chain = make_chain(data, str(file))
        self._lock: IO[str] | None = None

    @classmethod
    def create(cls, chain: Chain, out: str | Path | None = None) -> ChainFolder:
        """A new folder at `out`, or else one named after the chain and the time in `runs_dir`."""
        place = Path(out) if out is not None else free_name(Path(chain.stages[0].recipe.runs_dir), chain.name)
        make_place(place, CHAIN, chain.text())
        return cls.resume(place)

    @classmethod
    def resume(cls, path: str | Path) -> ChainFolder:
        """The folder of a chain that stopped, to be written on."""
        folder = cls(path)
        folder._lock = lock_folder(folder.path, (STAGES,))
        return folder

    @property
    def start(self) -> Path:
        """Where the model that the chain starts from is kept, where it was made on the spot."""
        return self.path / "start"

    def stage(self, stage: Stage) -> Path:
        """The run folder of a stage."""
        return self.path / STAGES / stage.folder

    def named(self, name: str) -> Path | None:
        """The run folder of the stage of this name; None where there is no such stage."""
        return next((self.stage(stage) for stage in self.chain.stages if stage.name == name), None)

    def finished(self, stage: Stage) -> bool:
        """Whether a stage has ended, its evaluation and report included."""
        return (self.stage(stage) / FINISHED).is_file()

    def finish(self, stage: Stage) -> None:
        """Say that a stage has ended."""
        write_whole(self.stage(stage) / FINISHED, "")

    def scores(self, stage: Stage) -> list[EnvScores]:
        """Held-out accuracy so far in a stage, one entry for each environment; empty before it was evaluated."""
        return env_scores(read_metrics(self.stage(stage)))

    def remove_if_unused(self) -> None:
        """Close, and remove the folder if no stage came to anything."""
        self.close()
        if not any((self.path / STAGES).iterdir()):
            shutil.rmtree(self.path)

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def __enter__(self) -> ChainFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
