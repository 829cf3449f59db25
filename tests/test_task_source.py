"""Tasks come from generators and files alike; a bad row is told by file and line before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ludus.envs import (
    HubSource,
    JsonlSource,
    ListSource,
    ParquetSource,
    ProceduralSource,
    Task,
    TaskError,
    epoch_index,
)

ROWS = [
    {"question": "1+1?", "answer": 2, "name": "a", "level": 1},
    {"question": "2+2?", "answer": 4, "name": "b", "level": 2},
]
KEYS = {"prompt_key": "question", "id_key": "name"}
EXPECTED = Task("b", "2+2?", 4, {"level": 2})


def jsonl(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_jsonl_file_gives_tasks(tmp_path: Path) -> None:
    source = JsonlSource(jsonl(tmp_path / "t.jsonl", *map(json.dumps, ROWS), "", "  "), **KEYS)
    assert (source.size, source.task(1)) == (2, EXPECTED)


def test_rows_without_an_id_are_named_by_file_and_line(tmp_path: Path) -> None:
    source = JsonlSource(jsonl(tmp_path / "t.jsonl", "", json.dumps(ROWS[0])), prompt_key="question")
    assert source.task(0).id == "t-2"


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "a\u2028b", "answer": 1}, ensure_ascii=False)
    assert JsonlSource(jsonl(tmp_path / "t.jsonl", row)).task(0).prompt == "a\u2028b"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"prompt": "x", ', "t.jsonl:2: the line is not valid JSON"),
        ("[1, 2]", "t.jsonl:2: the line is not a JSON object"),
        ('{"prompt": "a\\ud800", "answer": 1}', "t.jsonl:2: the text holds half of a surrogate pair, such as \\ud800"),
        ('{"prompt": "a", "answer": 1, "x": [{"\\udfff": 1}]}', "t.jsonl:2: the text holds half of a surrogate pair"),
        ("[" * 100_000, "t.jsonl:2: the line is not valid JSON"),
        ('{"prompt": "x"}', "t.jsonl:2: the row has no answer; expected the key 'answer', found the keys: prompt."),
        ('{"prompt": "x", "answer": null}', "t.jsonl:2: the row has no answer"),
        ('{"answer": 3}', "t.jsonl:2: the row has no prompt"),
        ('{"prompt": 3, "answer": 3}', "t.jsonl:2: the prompt 'prompt' must be text, not int."),
    ],
)
def test_a_malformed_line_is_told_by_file_and_line(tmp_path: Path, line: str, sentence: str) -> None:
    good = '{"prompt": "x", "answer": 1}'
    with pytest.raises(TaskError) as caught:
        JsonlSource(jsonl(tmp_path / "t.jsonl", good, line, good))
    assert sentence in str(caught.value)


def test_bytes_that_are_no_text_are_told_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'{"prompt": "\xff", "answer": 1}')
    with pytest.raises(TaskError, match=r"t\.jsonl:1: the line is not valid JSON"):
        JsonlSource(tmp_path / "t.jsonl")


def test_a_whole_surrogate_pair_is_one_character(tmp_path: Path) -> None:
    assert JsonlSource(jsonl(tmp_path / "t.jsonl", json.dumps({"prompt": "😀", "answer": 1}))).task(0).prompt == "😀"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"Cannot read the task file .*none\.jsonl: No such file"):
        JsonlSource(tmp_path / "none.jsonl")
    with pytest.raises(TaskError, match=r"Cannot read the Parquet file .*none\.parquet"):
        ParquetSource(tmp_path / "none.parquet")


def test_a_missing_id_is_told(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", '{"prompt": "x", "answer": 1}')
    with pytest.raises(TaskError, match="has no id under the key 'uid'"):
        JsonlSource(path, id_key="uid")


def test_a_parquet_file_gives_the_same_tasks(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    source = ParquetSource(tmp_path / "t.parquet", **KEYS)
    assert (source.size, source.task(1)) == (2, EXPECTED)


def test_a_parquet_file_that_is_none_or_lacks_an_answer_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("not parquet")
    with pytest.raises(TaskError, match=r"Cannot read the Parquet file .*t\.parquet"):
        ParquetSource(tmp_path / "t.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "x", "answer": None}]), tmp_path / "u.parquet")
    with pytest.raises(TaskError, match=r"u\.parquet: row 0: the row has no answer"):
        ParquetSource(tmp_path / "u.parquet")


def test_a_hugging_face_data_set_gives_the_same_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = jsonl(tmp_path / "t.jsonl", *map(json.dumps, ROWS))
    from_files = HubSource("json", data_files=str(path), **KEYS)
    assert (from_files.size, from_files.task(1)) == (2, EXPECTED)
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert HubSource(str(tmp_path / "saved"), **KEYS).task(1) == EXPECTED
    with pytest.raises(TaskError, match="row 0: the row has no prompt"):
        HubSource(str(tmp_path / "saved")).task(0)
    with pytest.raises(TaskError, match=r"Cannot load the data set 'json', split 'train'"):
        HubSource("json", data_files=str(tmp_path / "none.jsonl"))


@pytest.mark.parametrize("source", [ListSource([EXPECTED]), ProceduralSource(lambda rng, index: EXPECTED)])
def test_an_index_outside_the_source_is_refused(source: ListSource | ProceduralSource) -> None:
    for index in (-1, 1) if source.size else (-1,):
        with pytest.raises(TaskError, match="ask for an index from 0"):
            source.task(index)


def test_a_procedural_task_depends_on_seed_and_index_alone() -> None:
    def generate(rng: np.random.Generator, index: int) -> Task:
        return Task(str(index), str(rng.integers(10**9)), 0)

    tasks = [ProceduralSource(generate, seed=1).task(index) for index in range(5)]
    backwards = [ProceduralSource(generate, seed=1).task(index) for index in reversed(range(5))]
    assert tasks == backwards[::-1]
    assert len({task.prompt for task in tasks}) == 5
    assert ProceduralSource(generate, seed=2).task(0) != tasks[0]
    with pytest.raises(TaskError, match="give a seed of 0 or more"):
        ProceduralSource(generate, seed=-1)


def test_each_epoch_visits_every_task_once_in_its_own_order() -> None:
    epochs = [[epoch_index(cursor, 50, seed=3) for cursor in range(start, start + 50)] for start in (0, 50, 100)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert epochs[0] != [epoch_index(cursor, 50, seed=4) for cursor in range(50)]


def test_an_endless_source_is_read_in_its_own_order_and_an_empty_one_refused() -> None:
    assert [epoch_index(cursor, None, seed=3) for cursor in (0, 7, 10**9)] == [0, 7, 10**9]
    with pytest.raises(TaskError, match="is empty"):
        epoch_index(0, 0, seed=0)


def test_the_hash_of_a_task_is_of_its_content() -> None:
    assert Task("a", "p", 1, {"x": 1, "y": 2}).hash == Task("b", "p", 1, {"y": 2, "x": 1}).hash
    assert Task("a", "p", 1).hash != Task("a", "p", 2).hash
    assert Task.from_json(json.loads(json.dumps(EXPECTED.to_json()))) == EXPECTED
