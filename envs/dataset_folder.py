"""Where the files of a public dataset are on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import EnvError

_NEAR = ("../shared/data", "shared/data", "data")


def dataset_folder(name: str, data_dir: str | Path | None, holds: str) -> Path | None:
    """The folder of a dataset: `data_dir`, else $LUDUS_DATA/name, else one near the working directory, else None.

    holds: what is in it, for the error. Raises EnvError where a folder that was asked for by name is not there.
    """
    named = None
    if data_dir is not None:
        named = Path(data_dir)
    elif os.environ.get("LUDUS_DATA"):
        named = Path(os.environ["LUDUS_DATA"]) / name
    if named is not None:
        if not named.is_dir():
            by = "data_dir" if data_dir is not None else "LUDUS_DATA"
            raise EnvError(f"There is no folder {named}; let {by} name one that holds {holds}.")
        return named
    return next((Path(near, name).resolve() for near in _NEAR if Path(near, name).is_dir()), None)
