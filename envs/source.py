"""Where tasks come from: a seeded generator, JSONL, Parquet, or a Hugging Face data set.

Invariant: `task(index)` is a pure function of the source's arguments and the index, the same in every process.
"""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .errors import TaskError
from .task import Task

Row = Mapping[str, Any]


class TaskSource(Protocol):
    """Tasks by index. `size` is None where there is no end."""

    @property
    def size(self) -> int | None:
        """How many tasks there are, None for endless."""
        ...

    def task(self, index: int) -> Task:
        """The task at `index`, from 0; raises TaskError outside the range."""
        ...


@functools.lru_cache(maxsize=4)
def _permutation(epoch: int, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def epoch_index(cursor: int, size: int | None, seed: int) -> int:
    """The task index at a running cursor (0, 1, 2, …): each epoch visits every task once, in its own seeded order.

    An endless source (size None) is read in its own order: the cursor itself.
    """
    if size is None:
        return cursor
    if size <= 0:
        raise TaskError("The task source is empty; give it at least one task.")
    epoch, position = divmod(cursor, size)
    return int(_permutation(epoch, size, seed)[position])


def _within(index: int, size: int | None, what: str) -> int:
    if index < 0 or (size is not None and index >= size):
        last = "" if size is None else f" to {size - 1}"
        raise TaskError(f"{what} has no task {index}; ask for an index from 0{last}.")
    return index


class ProceduralSource:
    """Endless tasks from `generate(rng, index)`, whose generator is seeded from (seed, index) alone."""

    size: int | None = None

    def __init__(self, generate: Callable[[np.random.Generator, int], Task], seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise TaskError(f"A task source cannot be seeded with {seed!r:.100}; give a seed of 0 or more.")
        self.generate = generate
        self.seed = seed

    def task(self, index: int) -> Task:
        """The task at `index`."""
        return self.generate(np.random.default_rng((self.seed, _within(index, None, "The generator"))), index)


class ListSource:
    """Tasks that are already there."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        self.size: int | None = len(self.tasks)

    def task(self, index: int) -> Task:
        """The task at `index`."""
        return self.tasks[_within(index, self.size, "The list of tasks")]


def row_to_task(row: Row, where: str, prompt_key: str, answer_key: str, id_key: str | None, default_id: str) -> Task:
    """A Task from one row; every other column goes to `data`. Raises TaskError, which begins with `where`."""
    for key, what in ((prompt_key, "prompt"), (answer_key, "answer")):
        if row.get(key) is None:
            found = ", ".join(map(str, row)) or "none"
            raise TaskError(f"{where}: the row has no {what}; expected the key {key!r}, found the keys: {found}.")
    if not isinstance(row[prompt_key], str):
        raise TaskError(f"{where}: the prompt {prompt_key!r} must be text, not {type(row[prompt_key]).__name__}.")
    if id_key is not None and row.get(id_key) is None:
        raise TaskError(f"{where}: the row has no id under the key {id_key!r}; add it or leave id_key out.")
    data = {key: value for key, value in row.items() if key not in (prompt_key, answer_key, id_key)}
    name = default_id if id_key is None else str(row[id_key])
    return Task(id=name, prompt=row[prompt_key], answer=row[answer_key], data=data)


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, row) of each line that is not blank, of a file that may be packed by gzip (.gz).

    Raises TaskError naming file and line.
    """
    try:
        packed = path.read_bytes()
        lines = (gzip.decompress(packed) if path.suffix == ".gz" else packed).split(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise TaskError(f"Cannot read the task file {path}: {reason}; check the path.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise TaskError(
                f"{path}:{number}: the text holds half of a surrogate pair, such as \\ud800, which is no character; "
                "correct or remove the line."
            ) from error
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{path}:{number}: the line is not valid JSON ({error}); correct or remove it.") from error
        if not isinstance(row, dict):
            raise TaskError(f"{path}:{number}: the line is not a JSON object; write one such as {{...}} on each line.")
        yield number, row


class JsonlSource(ListSource):
    """One task per line of a JSONL file. The whole file is checked when the source is made."""

    def __init__(
        self, path: str | Path, prompt_key: str = "prompt", answer_key: str = "answer", id_key: str | None = None
    ) -> None:
        path = Path(path)
        super().__init__(
            [
                row_to_task(row, f"{path}:{line}", prompt_key, answer_key, id_key, f"{path.stem}-{line}")
                for line, row in read_jsonl(path)
            ]
        )


class ParquetSource(ListSource):
    """One task per row of a Parquet file. The whole file is checked when the source is made."""

    def __init__(
        self, path: str | Path, prompt_key: str = "prompt", answer_key: str = "answer", id_key: str | None = None
    ) -> None:
        import pyarrow
        import pyarrow.parquet

        path = Path(path)
        try:
            rows = pyarrow.parquet.read_table(path).to_pylist()
        except (OSError, pyarrow.ArrowInvalid) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TaskError(f"Cannot read the Parquet file {path}: {first}") from error
        super().__init__(
            [
                row_to_task(row, f"{path}: row {n}", prompt_key, answer_key, id_key, f"{path.stem}-{n}")
                for n, row in enumerate(rows)
            ]
        )


def load_hub_rows(path: str, name: str | None, split: str, **options: Any) -> Sequence[Row]:
    """Rows of a data set from the Hugging Face hub, from a folder on disk, or of a local format such as "json".

    `options` go to `datasets.load_dataset` (for instance data_files or revision). Raises TaskError.
    """
    try:
        import datasets
    except ImportError as error:
        raise TaskError("Data sets from the hub need one more package: pip install 'ludus[hub]'") from error
    try:
        if Path(path).is_dir() and any((Path(path) / f).exists() for f in ("state.json", "dataset_dict.json")):
            loaded = datasets.load_from_disk(path)
            return loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        return datasets.load_dataset(path, name, split=split, **options)
    except Exception as error:  # the library raises its own and other libraries' errors, most of them undocumented
        first = (str(error).splitlines() or [""])[0]
        raise TaskError(
            f"Cannot load the data set {path!r}, split {split!r} ({type(error).__name__}: {first}); "
            "check its name, the split and the network."
        ) from error


class HubSource:
    """One task per row of a Hugging Face data set; needs `ludus[hub]`. Rows are read when they are asked for."""

    def __init__(
        self,
        path: str,
        name: str | None = None,
        split: str = "train",
        prompt_key: str = "prompt",
        answer_key: str = "answer",
        id_key: str | None = None,
        **options: Any,
    ) -> None:
        self.rows = load_hub_rows(path, name, split, **options)
        self.size: int | None = len(self.rows)
        self._where = f"{path}[{split}]"
        self._keys = (prompt_key, answer_key, id_key)

    def task(self, index: int) -> Task:
        """The task at `index`."""
        row = self.rows[_within(index, self.size, self._where)]
        return row_to_task(row, f"{self._where}: row {index}", *self._keys, default_id=f"{self._where}-{index}")
