"""newest_model: the model that is meant by the folder of a run or of a chain."""

from __future__ import annotations

from pathlib import Path

from .run_folder import CHAIN, STAGES
from .trainers.checkpoint import list_checkpoints


def newest_model(path: str | Path) -> str:
    """The model directory meant by `path`: the newest checkpoint of a run or of a chain's last stage, else `path`."""
    folder = Path(path)
    chained = (folder / CHAIN).is_file()
    stages = sorted((folder / STAGES).glob("*/checkpoints"), reverse=True) if chained else []
    for place in [folder / "checkpoints", *stages]:
        found = list_checkpoints(place) if place.is_dir() else []
        if found:
            return str(found[-1].path)
    return str(path)
