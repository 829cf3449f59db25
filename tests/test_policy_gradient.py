"""The gradient of an optimiser step: the same however the step is cut, packed, padded or ordered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.agents.config import TinyModel
from ludus.agents.model import create_tiny_model
from ludus.agents.trajectory import Episode, Trajectory
from ludus.trainers.algorithms import Experience, get_algorithm
from ludus.trainers.batch import Row, collate, micro_batches, pack_rows
from ludus.trainers.policy_step import accumulate, build_rows, frozen_logprobs, weigh
from ludus.trainers.scoring import score

SHAPE = TinyModel(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64)
PRESETS = {
    "reinforce": {"baseline_decay": 0.5},
    "rloo": {"kl_coef": 0.1},
    "grpo": {"kl_coef": 0.1},
    "dr_grpo": {},
    "dapo": {},
}


@pytest.fixture(scope="module")
def model():
    return create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.1}), 0)[0]


def make_episodes(seed: int, groups: int = 3, size: int = 4) -> list[Episode]:
    """Episodes in groups with one prompt each, several turns, and rewards."""
    rng = np.random.default_rng(seed)
    episodes = []
    for group in range(groups):
        prompt = [int(token) for token in rng.integers(7, 90, rng.integers(4, 20))]
        for sample in range(size):
            tokens, mask = list(prompt), [False] * len(prompt)
            for _ in range(int(rng.integers(1, 4))):
                sampled, seen = int(rng.integers(1, 8)), int(rng.integers(0, 5))
                tokens += [int(token) for token in rng.integers(7, 90, sampled + seen)]
                mask += [True] * sampled + [False] * seen
            logprobs = tuple(float(-x) if m else 0.0 for x, m in zip(rng.random(len(tokens)), mask, strict=True))
            versions = tuple(0 if m else -1 for m in mask)
            trajectory = Trajectory(tuple(tokens), tuple(mask), logprobs, versions)
            episodes.append(
                Episode(
                    id=f"{group}/{sample}",
                    env="e",
                    task_id=str(group),
                    group=str(group),
                    seed=0,
                    reward=float(rng.integers(0, 3)) / 2,
                    rewards={},
                    verdict=None,
                    terminated=True,
                    truncated=False,
                    error=None,
                    stop_reason="answer",
                    messages=(),
                    trajectories=(trajectory,),
                )
            )
    return episodes


def make_rows(name: str, episodes: list[Episode], model) -> list[Row]:
    algorithm = get_algorithm(name, **PRESETS[name])
    rewards = np.array([episode.reward for episode in episodes])
    experience = Experience(episodes, rewards, np.array([int(episode.group) for episode in episodes]))
    advantages, _ = algorithm.estimator(experience, {"baseline": 0.3})
    rows = build_rows(algorithm, episodes, advantages)
    rng = np.random.default_rng(1)
    return [
        replace(row, reference=np.array(row.trajectory.logprobs) + 0.1 * rng.normal(size=len(row.trajectory.mask)))
        for row in rows
    ]


def gradient(name: str, rows: list[Row], model, tokens: int) -> torch.Tensor:
    model.zero_grad()
    accumulate(get_algorithm(name, **PRESETS[name]), model, rows, tokens)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", sorted(PRESETS))
@settings(max_examples=8)
@given(seed=st.integers(0, 1000), tokens=st.sampled_from([1, 60, 200, 100_000]), order=st.integers(0, 100))
def test_the_gradient_does_not_depend_on_how_the_step_is_cut_or_ordered(name, seed, tokens, order, model) -> None:
    rows = make_rows(name, make_episodes(seed), model)
    whole = gradient(name, rows, model, 100_000)
    shuffled = [rows[i] for i in np.random.default_rng(order).permutation(len(rows))]
    other = gradient(name, shuffled, model, tokens)
    assert whole.abs().max() > 0 or all(np.allclose(row.advantages, 0) for row in rows)
    assert torch.allclose(whole, other, atol=2e-5 * max(1.0, float(whole.abs().max())))


def test_packing_shares_prompts_and_changes_no_log_probability(model) -> None:
    rows = make_rows("grpo", make_episodes(5, groups=4, size=6), model)
    device = torch.device("cpu")
    found = []
    for share in (True, False):
        values = {}
        for packs in micro_batches(rows, 500, share):
            batch = collate(rows, packs, model.config.vocab_size, device)
            logprobs, entropies = score(model, batch)
            for place, value, entropy in zip(
                batch.source_N2.tolist(), logprobs.tolist(), entropies.tolist(), strict=True
            ):
                values[tuple(place)] = (value, entropy)
        found.append(values)
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == sum(sum(row.trajectory.mask) for row in rows)
    assert all(found[0][key] == pytest.approx(found[1][key], abs=1e-5) for key in found[0])


def test_packs_of_short_answers_to_one_question_share_it() -> None:
    prompt = tuple(range(10, 90))
    rows = [
        Row(Trajectory((*prompt, 5, 6, 7), (False,) * 80 + (True,) * 3, (0.0,) * 83, (0,) * 83), np.zeros(83), 1.0)
        for _ in range(8)
    ]
    (pack,) = pack_rows(rows)
    assert pack.prefix == 80
    assert pack.length == 80 + 8 * 3
    assert [p.rows for p in pack_rows(rows, share=False)] == [(i,) for i in range(8)]


def test_log_probabilities_are_those_of_the_transformers_module_at_the_sampling_temperature(model) -> None:
    rng = np.random.default_rng(0)
    tokens = tuple(int(token) for token in rng.integers(7, 90, 30))
    mask = (False,) * 10 + (True,) * 20
    row = Row(Trajectory(tokens, mask, (0.0,) * 30, (0,) * 30, temperature=0.7), np.zeros(30), 1.0)
    found = frozen_logprobs(model, [row], 1000)[0]
    logits = model(torch.tensor([tokens])).logits[0, :-1].detach() / 0.7
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
    assert found[10:] == pytest.approx(expected[9:].tolist(), abs=1e-5)
    assert (found[:10] == 0).all()


def test_kept_sets_renormalise_the_log_probabilities(model) -> None:
    tokens, mask = (10, 20, 30), (False, True, True)
    kept = (None, (20,), (30, 31))
    row = Row(Trajectory(tokens, mask, (0.0,) * 3, (0,) * 3, kept=kept), np.zeros(3), 1.0)
    found = frozen_logprobs(model, [row], 100)[0]
    logits = model(torch.tensor([tokens])).logits[0].detach()
    assert found[1] == pytest.approx(0.0, abs=1e-6)
    assert found[2] == pytest.approx(torch.log_softmax(logits[1, [30, 31]], -1)[0].item(), abs=1e-5)


def test_observed_tokens_carry_no_gradient(model) -> None:
    (episode,) = make_episodes(3, groups=1, size=1)
    (trajectory,) = episode.trajectories
    algorithm = get_algorithm("reinforce")
    spoiled = [np.where(trajectory.mask, 1.0, 1e6)]
    clean = [np.where(trajectory.mask, 1.0, 0.0)]
    gradients = [
        gradient("reinforce", weigh(algorithm, [Row(trajectory, a, 0.0)], [0]), model, 1000)
        for (a,) in (spoiled, clean)
    ]
    assert torch.equal(*gradients)


def test_dapo_can_leave_truncated_episodes_out_of_the_loss() -> None:
    episodes = make_episodes(2)
    episodes[0] = replace(episodes[0], terminated=False, truncated=True)
    advantages = [[np.zeros(len(t.mask)) for t in episode.trajectories] for episode in episodes]
    assert len(build_rows(get_algorithm("dapo"), episodes, advantages)) == len(episodes)
    assert len(build_rows(get_algorithm("dapo", drop_truncated=True), episodes, advantages)) == len(episodes) - 1
