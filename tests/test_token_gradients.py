"""Why a token got its gradient: what is kept is what the backward pass found, and what stopped a run is named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_policy_gradient import PRESETS, TEACHER, make_episodes, make_rows
from test_train import Run, ended, one_turn

from ludus.trainers.algorithms import get_algorithm
from ludus.trainers.batch import collate, pack_rows
from ludus.trainers.optimizer import NonFiniteError
from ludus.trainers.policy_step import accumulate, gradient_error
from ludus.trainers.scoring import distributions, reverse_kl, score
from ludus.trainers.token_gradients import TokenGradientError, TokenGradients, explain_token


@pytest.fixture(scope="module")
def model():
    from test_policy_gradient import SHAPE

    from ludus.agents.model import create_tiny_model

    return create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.1}), 0)[0]


def flat(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"opd"}))
def test_the_gradient_of_the_model_is_the_sum_over_tokens_of_what_is_kept(name: str, model) -> None:
    """By the chain rule, whatever the algorithm; of opd over the whole vocabulary the sampled token is only a part."""
    rows = make_rows(name, make_episodes(4), model)
    kept: dict[int, TokenGradients] = {}
    model.zero_grad()
    accumulate(get_algorithm(name, **PRESETS[name]), model, rows, 200, teacher=TEACHER, keep=kept)
    found = flat(model).clone()
    assert sorted(kept) == list(range(len(rows)))
    model.zero_grad()
    batch = collate(rows, pack_rows(rows), model.config.vocab_size, torch.device("cpu"))
    logprobs_N, _ = score(model, batch)
    gradients = [kept[row].gradient[position] for row, position in batch.source_N2.tolist()]
    (logprobs_N * torch.tensor(gradients, dtype=torch.float32)).sum().backward()
    assert torch.allclose(found, flat(model), atol=2e-5 * max(1.0, float(found.abs().max())))


def test_what_is_kept_of_a_clipped_token_is_the_formula(model) -> None:
    """GRPO, k3 with coefficient 0.1: gradient = weight * (-r A [where not clipped] + 0.1 (1 - exp(ref - logp)))."""
    rows = make_rows("grpo", make_episodes(4), model)
    batch = collate(rows, pack_rows(rows), model.config.vocab_size, torch.device("cpu"))
    logprobs = score(model, batch)[0].tolist()
    kept: dict[int, TokenGradients] = {}
    zeros = [np.zeros(len(row.trajectory.mask)) for row in rows]
    olds = [replace(row, old=zero.copy(), reference=zero.copy()) for row, zero in zip(rows, zeros, strict=True)]
    where = {}
    for (row, position), logprob in zip(batch.source_N2.tolist(), logprobs, strict=True):
        olds[row].old[position] = logprob + (0.5, -0.5, 0.01)[position % 3]  # type: ignore[index]
        olds[row].reference[position] = logprob + (0.2, -0.1)[position % 2]  # type: ignore[index]
        where[row, position] = logprob
    accumulate(get_algorithm("grpo", kl_coef=0.1), model, olds, 1000, keep=kept)
    clips = set()
    for (row, position), logprob in where.items():
        own, weight = kept[row], rows[row].weight
        ratio, advantage = np.exp(logprob - olds[row].old[position]), rows[row].advantages[position]  # type: ignore[index]
        clipped = int(ratio > 1.2 and advantage > 0) - int(ratio < 0.8 and advantage < 0)
        clips.add(clipped)
        apart = olds[row].reference[position] - logprob  # type: ignore[index]
        expected = weight * ((0 if clipped else -ratio * advantage) + 0.1 * (1 - np.exp(apart)))
        assert own.gradient[position] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert own.ratio[position] == pytest.approx(ratio, rel=1e-4) and own.clip[position] == clipped
        assert own.kl[position] == pytest.approx(0.1 * (np.exp(apart) - 1 - apart), rel=1e-3, abs=1e-6)
        assert own.weight[position] == pytest.approx(weight) and own.correction[position] == 1
    assert clips == {-1, 0, 1}


@pytest.mark.parametrize(
    ("algorithm", "settings"), [("grpo", {"minibatches": 2, "epochs": 2}), ("trpo", {}), ("v32", {})]
)
def test_every_sampled_token_of_a_step_is_explained(algorithm: str, settings) -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm=algorithm, steps=1, groups=4, **settings)) as run:
        run.train()
    (episodes, advantages), gradients = run.kept[0], run.gradients[0]
    moved = 0
    for episode, own, found in zip(episodes, advantages, gradients, strict=True):
        gradient = found[0]
        assert gradient is not None
        row = {**episode.to_json(), "advantages": [own[0].tolist()], "gradients": [gradient.to_json()]}
        row = json.loads(json.dumps(row))
        for position, sampled in enumerate(episode.trajectories[0].mask):
            why = explain_token(row, position)
            assert why.sampled == sampled and (why.weight > 0) == sampled
            moved += why.gradient != 0
            assert ("carries no loss" in str(why)) != sampled
    assert moved > 0


def test_of_a_whole_distribution_the_divergence_is_kept(model) -> None:
    """No one token's log-probability is taught, so what is shown is what the loss says of all of them."""
    rows = make_rows("opd", make_episodes(4), model)
    kept: dict[int, TokenGradients] = {}
    found = accumulate(get_algorithm("opd", full_vocabulary=True), model, rows, 200, teacher=TEACHER, keep=kept)
    batch = collate(rows, pack_rows(rows), model.config.vocab_size, torch.device("cpu"))
    with torch.no_grad():
        apart = reverse_kl(distributions(model, batch), distributions(TEACHER, batch)).tolist()
    for (row, position), divergence in zip(batch.source_N2.tolist(), apart, strict=True):
        assert kept[row].whole[position] == pytest.approx(divergence, rel=1e-3, abs=1e-6)
        assert kept[row].gradient[position] == 0
    assert min(apart) > 0
    total = sum(float((one.whole * one.weight).sum()) for one in kept.values())
    assert total == pytest.approx(found["loss"], rel=1e-4)
    other: dict[int, TokenGradients] = {}
    accumulate(get_algorithm("opd"), model, rows, 200, teacher=TEACHER, keep=other)
    assert not any(one.whole.any() for one in other.values()) and any(one.gradient.any() for one in other.values())


def test_a_sentence_says_what_made_a_token_likelier_or_not() -> None:
    path = {"token_ids": [5, 6, 7], "mask": [False, True, True], "versions": [-1, 3, 3], "logprobs": [0.0, -1.0, -2.0]}
    kept = {"gradient": [0, -0.5, 0], "weight": [0, 0.25, 0.25], "ratio": [0, 1.5, 0.7], "clip": [0, 0, -1]}
    kept |= {"correction": [0, 0.5, 1], "kl": [0, 0.01, 0]}
    episode = {"id": "e", "trajectories": [path], "advantages": [[0, 2.0, -1.0]], "gradients": [kept]}
    assert (
        str(explain_token(episode, 0)) == "Token 0 was given to the policy, which sampled it not; it carries no loss."
    )
    assert str(explain_token(episode, 1)) == (
        "Token 1 became likelier (gradient -0.5): advantage +2, weight 0.25, ratio 1.5, correction 0.5, KL term 0.01."
    )
    assert str(explain_token(episode, 2)) == (
        "Token 2 became neither more nor less likely (gradient +0): advantage -1, weight 0.25, ratio 0.7, held at its "
        "lower bound."
    )
    taught = {**episode, "gradients": [{**kept, "gradient": [0, 0, -0.5], "clip": [0, 0, 0], "whole": [0, 0.5, -0.25]}]}
    assert str(explain_token(taught, 1)) == (
        "Token 1 stood where the whole distribution was taught, and not the sampled token: advantage +2, weight 0.25, "
        "ratio 1.5, correction 0.5, KL term 0.01, term of the whole distribution 0.5."
    )
    assert str(explain_token(taught, 2)).endswith(
        "became likelier (gradient -0.5): advantage -1, weight 0.25, ratio 0.7, term of the whole distribution -0.25."
    )
    left_out = {**episode, "gradients": [None]}
    assert "left out of the loss" in str(explain_token(left_out, 1))
    for row, token, trajectory, sentence in (
        (episode, 3, 0, "has 3 tokens; ask for one from 0 on, not 3"),
        (episode, 0, 1, "has 1 trajectories"),
        ({**episode, "gradients": None}, 0, 0, "Of the episode e no gradients were kept"),
    ):
        with pytest.raises(TokenGradientError, match=sentence):
            explain_token(row, token, trajectory)


# What stops a run


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("advantages", r"The advantage of token (\d+) \(id \d+\) of 0/0 is nan; no step was taken and the last check"),
        ("old", r"The log-probability before the step of token \d+ .* of 0/0 is nan"),
        ("reference", r"The log-probability under the other model of token \d+ .* of 0/0 is nan"),
    ],
)
def test_the_term_and_the_token_that_are_no_number_are_named(broken: str, sentence: str, model) -> None:
    rows = make_rows("grpo", make_episodes(6), model)
    wrong = getattr(rows[0], broken).copy()
    wrong[rows[0].trajectory.mask.index(True)] = np.nan
    rows[0] = replace(rows[0], **{broken: wrong})
    with pytest.raises(NonFiniteError, match=sentence):
        accumulate(get_algorithm("grpo", kl_coef=0.1), model, rows, 1000)


def test_a_gradient_that_is_no_number_is_traced_to_its_episode() -> None:
    import copy

    from test_policy_gradient import SHAPE

    from ludus.agents.model import create_tiny_model

    broken = copy.deepcopy(create_tiny_model(SHAPE, 0)[0])
    rows = make_rows("reinforce", make_episodes(6), broken)
    marked = rows[3].trajectory.token_ids[0]
    rows = [r for r in rows if r.trajectory.token_ids[0] != marked or r is rows[3]]

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        return gradient.index_fill(0, torch.tensor([marked]), torch.nan) if gradient[marked].any() else gradient

    broken.get_input_embeddings().weight.register_hook(spoil)
    error = gradient_error(get_algorithm("reinforce"), broken, rows, 1000, 0.0)
    assert f"first that of {rows[[r.trajectory.token_ids[0] for r in rows].index(marked)].name} (" in str(error)
    assert "embed_tokens" in str(error) and all(p.grad is None for p in broken.parameters())


def test_a_run_that_meets_a_nan_stops_with_its_step() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="reinforce", steps=1)) as run:
        run.trainer.algorithm = replace(
            run.trainer.algorithm, loss=lambda tokens: (tokens.logprobs_N * float("nan"), {})
        )
        before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        with pytest.raises(NonFiniteError, match=r"^Policy step 1: The policy loss of token \d+ \(id \d+\) of vowels/"):
            run.train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
