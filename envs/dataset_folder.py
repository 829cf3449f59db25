"""The rows of a public dataset: from its files on this machine, or from the hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import EnvError, TaskError
from .options import check_path
from .source import load_hub_rows, read_jsonl

_NEAR = ("../shared/data", "shared/data", "data")


def dataset_folder(name: str, data_dir: str | Path | None, holds: str) -> Path | None:
    """The folder of a dataset: `data_dir`, else $LUDUS_DATA/name, else one near the working directory, else None.

    holds: what is in it, for the error. Raises EnvError where a folder that was asked for by name is not there.
    """
    check_path("data_dir", data_dir)
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


def dataset_rows(
    title: str, folder: Path | None, file: str, hub: tuple[str, str | None, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where the row stands, row) of a file of JSON lines, or of the hub where there is no folder.

    title: the dataset, for the error. hub: its repository, configuration and split. Raises EnvError where it is neither
    here nor there.
    """
    if folder is not None:
        for line, row in read_jsonl(folder / file):
            yield f"{folder / file}:{line}", row
        return
    repository, _, split = hub
    try:
        rows = load_hub_rows(*hub)
    except TaskError as error:
        raise EnvError(
            f"{title} is not on this machine: give the option data_dir, or set LUDUS_DATA to the folder that holds "
            f"{title.lower()}/{file}. (From the hub: {error})"
        ) from error
    for number, hub_row in enumerate(rows):
        yield f"{repository}[{split}]: row {number}", dict(hub_row)
