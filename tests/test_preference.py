"""Preference training: whole answers, gradients that no cutting changes, and objectives that rise on held-out pairs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_policy_gradient import SHAPE, make_episodes
from test_train import Notes

from ludus.agents.model import create_tiny_model
from ludus.agents.trajectory import Trajectory
from ludus.trainers.answers import answer_row, answer_values, logprobs_of
from ludus.trainers.config import OptimizerConfig, PreferenceConfig
from ludus.trainers.optimizer import build_optimizer
from ludus.trainers.pairs import Labelled, Pair, PreferenceError, labelled, pairs_of
from ludus.trainers.preference import evaluate_preference, mismatch, preference_step, prepare, train_preference

METHODS: dict[str, dict[str, Any]] = {
    "dpo": {"label_smoothing": 0.1},
    "dpo, average": {"average": True},
    "ipo": {},
    "kto": {"undesirable_weight": 1.5},
    "orpo": {},
    "orpo, trl": {"like": "trl"},
}


def config(method: str, **changes: Any) -> PreferenceConfig:
    options = {**METHODS.get(method, {}), **changes}
    return PreferenceConfig(**{"method": method.partition(",")[0], "steps": 1, **options})


@pytest.fixture(scope="module")
def model():
    return create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.1}), 0)[0]


@pytest.fixture(scope="module")
def reference():
    return create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.1}), 1)[0].requires_grad_(False)


def pair_up(seed: int) -> list[Pair]:
    return pairs_of(make_episodes(seed, groups=5, size=3))


def gradient(model: Any, examples: list[Any], settings: PreferenceConfig, reference: Any) -> torch.Tensor:
    model.zero_grad()
    preference_step(model, prepare(examples, settings, reference), settings)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=6)
@given(seed=st.integers(0, 1000), tokens=st.sampled_from([1, 60, 200]), order=st.integers(0, 100))
def test_the_gradient_does_not_depend_on_how_the_step_is_cut(method, seed, tokens, order, model, reference) -> None:
    pairs = pair_up(seed)
    if not pairs:
        return
    examples: list[Any] = labelled(pairs) if method == "kto" else pairs
    frozen = None if method.startswith("orpo") else reference
    whole = gradient(model, examples, config(method, micro_batch_tokens=100_000), frozen)
    if method != "kto":  # which answer is held against which prompt follows the order
        examples = [examples[i] for i in np.random.default_rng(order).permutation(len(examples))]
    other = gradient(model, examples, config(method, micro_batch_tokens=tokens), frozen)
    assert float(whole.abs().max()) > 0
    assert torch.allclose(whole, other, atol=2e-5 * max(1.0, float(whole.abs().max())))


def test_the_gradient_equals_that_of_the_loss_taken_in_one_piece(model, reference) -> None:
    """DPO straight from the logits of each answer, without rows, packs or a second pass."""
    pairs = pair_up(3)
    found = gradient(model, pairs, config("dpo"), reference)

    def logprob(module: Any, answer: Trajectory) -> torch.Tensor:
        ids = torch.tensor([answer.token_ids])
        logprobs = module(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        return (logprobs * torch.tensor(answer.mask[1:])).sum()

    model.zero_grad()
    losses = []
    for pair in pairs:
        ratios = [logprob(model, a) - logprob(reference, a) for a in (pair.chosen, pair.rejected)]
        margin = 0.1 * (ratios[0] - ratios[1])
        right, wrong = (torch.nn.functional.logsigmoid(sign * margin) for sign in (1, -1))
        losses.append(-0.9 * right - 0.1 * wrong)
    torch.stack(losses).mean().backward()
    direct = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert torch.allclose(found, direct, atol=1e-5 * max(1.0, float(direct.abs().max())))


def test_answers_are_scored_at_temperature_one_over_the_whole_vocabulary(model) -> None:
    answer = pair_up(3)[0].chosen
    kept = tuple((token, 5) if m else None for token, m in zip(answer.token_ids, answer.mask, strict=True))
    cold = replace(answer, temperature=0.5, kept=kept)
    values = answer_values(model, [answer_row(answer), answer_row(cold)], 1000, logprobs_of(model))
    assert values[0] == pytest.approx(float(values[1]), abs=1e-4)


def test_at_the_reference_no_answer_is_preferred_and_the_loss_is_that_of_a_coin(model) -> None:
    curves = evaluate_preference(model, pair_up(3), config("dpo", label_smoothing=0.0), copy.deepcopy(model))
    assert curves["loss"] == pytest.approx(np.log(2))
    assert curves["margin"] == pytest.approx(0.0, abs=1e-6)


def test_a_mismatch_is_the_nearest_answer_before_to_another_prompt() -> None:
    pairs = pair_up(3)
    answers = [part.answer for part in labelled(pairs)]
    found = mismatch(answers)
    assert len(found) == len(answers)
    for index, made in enumerate(found):
        start = answers[index].mask.index(True)
        assert made.token_ids[:start] == answers[index].token_ids[:start]
        other = answers[(index // 2 * 2 - 1) % len(answers)]  # pairs lie side by side and share their prompt
        assert made.token_ids[start:] == other.token_ids[other.mask.index(True) :]
        assert made.mask[start:] == other.mask[other.mask.index(True) :]
    assert mismatch(answers[:2]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"beta": 0.0}, "greater than 0"),
        ({"method": "ipo", "label_smoothing": 0.1}, "label_smoothing is a setting of dpo"),
        ({"method": "kto", "label_smoothing": 0.1}, "label_smoothing is a setting of dpo and method is kto"),
        ({"desirable_weight": 2.0}, "desirable_weight is a setting of kto and method is dpo"),
        ({"method": "orpo", "undesirable_weight": 2.0}, "undesirable_weight is a setting of kto"),
        ({"path": "a.jsonl", "groups": 8}, "groups is a setting of rounds, and a file"),
        ({"path": "a.jsonl", "minibatches": 2}, "minibatches is a setting of rounds"),
        ({"method": "dpo", "like": "trl"}, "like is a setting of orpo"),
        ({"method": "orpo", "reference": "last"}, "orpo has no reference"),
        ({"path": "a.jsonl", "reference": "last"}, "a file has no rounds"),
        ({"method": "kto", "path": "a.jsonl", "batch_size": 1}, "raise batch_size"),
        ({"group_size": 1}, "greater than 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_fix(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PreferenceConfig(**{"steps": 1, **changes})


def test_examples_that_teach_nothing_are_refused_with_the_fix(model, reference) -> None:
    pairs = pair_up(3)
    for examples, method, given_reference, said in (
        ([], "dpo", reference, "nothing to learn from; give at least one pair"),
        (pairs, "kto", reference, r"kto learns from labelled answers; make them with labelled\(pairs\)"),
        (labelled(pairs), "dpo", reference, "dpo learns from pairs; choose method kto"),
        ([Labelled(p.chosen, True) for p in pairs], "kto", reference, "both desirable and undesirable"),
        (pairs, "orpo", reference, "orpo has no reference; give reference=None"),
        (pairs, "ipo", None, "ipo measures from a reference; give a frozen copy"),
    ):
        with pytest.raises(PreferenceError, match=said):
            evaluate_preference(model, examples, config(method), given_reference)
    with pytest.raises(PreferenceError, match="the same; leave the pair out"):
        Pair(pairs[0].chosen, pairs[0].chosen)
    with pytest.raises(PreferenceError, match="different prompts"):
        Pair(pairs[0].chosen, pairs[1].rejected)
    with pytest.raises(PreferenceError, match="at least one sampled token"):
        Labelled(replace(pairs[0].chosen, mask=(False,) * len(pairs[0].chosen.mask)), True)


def letters(count: int, seed: int) -> list[Pair]:
    """Random prompts; the chosen answer is one to three times X or Z, the rejected one Y or W."""
    _, tokenizer = create_tiny_model(SHAPE, 0)
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        question = "".join(rng.choice(list("abcdef"), 5))
        texts = [letter.upper() * int(rng.integers(1, 4)) for letter in ("xy" if rng.random() < 0.5 else "zw")]
        prompt = tokenizer.encode(f"<|user|>{question}<|end|><|assistant|>", add_special_tokens=False)
        answers = []
        for text in texts:
            said = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
            tokens = (*prompt, *said)
            mask = (False,) * len(prompt) + (True,) * len(said)
            answers.append(Trajectory(tokens, mask, (0.0,) * len(tokens), (-1,) * len(tokens)))
        pairs.append(Pair(*answers))
    return pairs


@pytest.mark.parametrize("method", ["dpo", "ipo", "kto", "orpo"])
def test_training_raises_its_own_objective_on_held_out_pairs(method: str) -> None:
    model, _ = create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.1}), 0)
    frozen = None if method == "orpo" else copy.deepcopy(model).requires_grad_(False)
    settings = PreferenceConfig(method=method, steps=30, batch_size=16, optimizer=OptimizerConfig(lr=3e-3))
    learnt, held_out = letters(64, 0), letters(32, 1)
    examples: list[Any] = labelled(learnt) if method == "kto" else learnt
    judged: list[Any] = labelled(held_out) if method == "kto" else held_out
    before = evaluate_preference(model, judged, settings, frozen)
    notes = Notes()
    train_preference(
        model,
        build_optimizer(model, settings.optimizer),
        examples,
        settings,
        reference=frozen,
        recorder=notes,
        show=notes,
        after_step=lambda step: None,
    )
    after = evaluate_preference(model, judged, settings, frozen)
    assert after["loss"] < before["loss"]
    assert after["accuracy"] > 0.9
    assert after["margin"] > before["margin"]
    assert {"loss", "accuracy", "margin", "chosen_reward", "rejected_reward", "grad_norm", "lr"} <= notes.rows[0].keys()
