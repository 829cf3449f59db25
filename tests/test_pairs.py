"""Pairs from episodes and from files: best against worst, nothing that failed, and faults named by line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_policy_gradient import SHAPE, make_episodes

from ludus.agents.model import create_tiny_model
from ludus.agents.renderer import Renderer, TemplateError
from ludus.envs.errors import TaskError
from ludus.trainers.pair_file import read_labelled, read_pairs
from ludus.trainers.pairs import PreferenceError, pairs_of

TOKENIZER = create_tiny_model(SHAPE, 0)[1]
RENDERER = Renderer(TOKENIZER, roles=())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), lost=st.sets(st.integers(0, 11)))
def test_each_group_gives_its_best_against_its_worst_and_failed_episodes_give_nothing(seed: int, lost: set) -> None:
    episodes = make_episodes(seed)
    episodes = [replace(e, reward=None, error="away") if i in lost else e for i, e in enumerate(episodes)]
    pairs = pairs_of(episodes)
    judged: dict[str, list[Any]] = {}
    for episode in episodes:
        if episode.reward is not None:
            judged.setdefault(episode.group, []).append(episode)
    spread = {g: es for g, es in judged.items() if len({e.reward for e in es}) > 1}
    assert len(pairs) == len(spread)
    for pair, group in zip(pairs, spread.values(), strict=True):
        rewards = {e.trajectories[0]: e.reward for e in group}
        assert rewards[pair.chosen] == max(rewards.values())
        assert rewards[pair.rejected] == min(rewards.values())
        assert pair.margin == pytest.approx(rewards[pair.chosen] - rewards[pair.rejected])


def test_episodes_in_several_trajectories_are_refused_with_the_fix() -> None:
    episode = make_episodes(0)[0]
    with pytest.raises(PreferenceError, match="has 2 trajectories and pairs need one; use a chat template"):
        pairs_of([replace(episode, trajectories=episode.trajectories * 2)])


def test_the_same_answer_with_two_rewards_makes_no_pair() -> None:
    first = replace(make_episodes(0)[0], reward=0.0)
    assert pairs_of([first, replace(first, reward=1.0)]) == []


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(trajectory: Any) -> tuple[str, str]:
    """What was read and what was said, as text."""
    parts = [[t for t, m in zip(trajectory.token_ids, trajectory.mask, strict=True) if m == kind] for kind in (0, 1)]
    return TOKENIZER.decode(parts[0]), TOKENIZER.decode(parts[1])


def test_texts_and_conversations_become_pairs_whose_assistant_turns_count_as_sampled(tmp_path: Path) -> None:
    turns = [
        {"role": "assistant", "content": "which?"},
        {"role": "user", "content": "the first"},
        {"role": "assistant", "content": "one"},
    ]
    file = write(
        tmp_path / "pairs.jsonl",
        {"prompt": "say", "chosen": "yes", "rejected": "no", "margin": 2},
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "chosen": turns,
            "rejected": "x",
        },
    )
    first, second = read_pairs(file, RENDERER, 200)
    assert said(first.chosen) == ("<|user|>say<|end|><|assistant|>", "yes<|end|>")
    assert said(first.rejected) == ("<|user|>say<|end|><|assistant|>", "no<|end|>")
    assert (first.margin, second.margin) == (2.0, 0.0)
    read = "<|system|>s<|end|><|user|>u<|end|><|assistant|><|user|>the first<|end|><|assistant|>"
    assert said(second.chosen) == (read, "which?<|end|>one<|end|>")


def test_labelled_answers_come_from_completions_with_labels(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": text, "label": text == "good"} for text in ("good", "bad")]
    found = read_labelled(write(tmp_path / "l.jsonl", *rows), RENDERER, 200)
    assert [(said(e.answer)[1], e.desirable) for e in found] == [("good<|end|>", True), ("bad<|end|>", False)]


def test_an_answer_that_spells_the_end_of_a_turn_does_not_end_it(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a<|end|>", "rejected": "b"}
    (pair,) = read_pairs(write(tmp_path / "p.jsonl", row), RENDERER, 200)
    assert pair.chosen.token_ids.count(RENDERER.end_id) == pair.rejected.token_ids.count(RENDERER.end_id)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "p", "chosen": "a"}, "rejected must be a text or a list of messages"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "are the same; leave the pair out"),
        ({"prompt": "p", "chosen": "a", "rejected": [{"role": "user", "content": "x"}]}, r"rejected has the roles \["),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "prompt must end with a message that is not the assistant's"),
        ({"prompt": "p", "chosen": "a" * 300, "rejected": "b"}, "have 305 tokens, more than engine.max_length = 200"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "1"}, "margin is '1'; give a finite number"),
    ],
)
def test_a_faulty_line_is_named_with_its_cure(row: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}, row)
    with pytest.raises(PreferenceError, match=rf"pairs\.jsonl:2: .*{sentence}"):
        read_pairs(file, RENDERER, 200)


def test_files_without_lines_labels_or_a_place_are_named(tmp_path: Path) -> None:
    with pytest.raises(PreferenceError, match="is empty; give one JSON object"):
        read_pairs(write(tmp_path / "e.jsonl"), RENDERER, 200)
    with pytest.raises(PreferenceError, match="label is 1; give true or false"):
        read_labelled(write(tmp_path / "l.jsonl", {"prompt": "p", "completion": "c", "label": 1}), RENDERER, 200)
    with pytest.raises(TaskError, match=r"none\.jsonl: No such file"):
        read_pairs(tmp_path / "none.jsonl", RENDERER, 200)


def test_a_template_that_rewrites_history_is_refused_for_conversations_of_several_turns_alone(tmp_path: Path) -> None:
    tokenizer = create_tiny_model(SHAPE, 0)[1]
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content if loop.last or m.role == 'user' else '…') "
        "+ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    renderer = Renderer(tokenizer, roles=())
    assert read_pairs(write(tmp_path / "a.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}), renderer, 200)
    turns = [{"role": r, "content": "x"} for r in ("assistant", "user", "assistant")]
    with pytest.raises(TemplateError, match="rewrites history"):
        read_pairs(write(tmp_path / "b.jsonl", {"prompt": "p", "chosen": turns, "rejected": "b"}), renderer, 200)
