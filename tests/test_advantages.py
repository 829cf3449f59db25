"""Advantage estimators, reductions and KL terms against numbers worked out by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ludus.agents.trajectory import Episode, Trajectory
from ludus.trainers.algorithms import ALGORITHMS, AlgorithmError, Experience, get_algorithm
from ludus.trainers.algorithms.advantages import group_center, group_norm, leave_one_out
from ludus.trainers.algorithms.kl import k1, k2, k3
from ludus.trainers.algorithms.reductions import (
    constant_length,
    sequence_mean_token_mean,
    sequence_mean_token_sum,
    token_mean,
)

REWARDS, GROUP = np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(4, int)


def test_group_norm_gives_the_known_vectors_of_verl_and_trl() -> None:
    verl, trl = group_norm(REWARDS, GROUP, eps=1e-6), group_norm(REWARDS, GROUP, eps=1e-4)
    assert verl == pytest.approx([1.499997, -0.499999, -0.499999, -0.499999], abs=1e-6)
    assert trl == pytest.approx([1.49970, -0.49990, -0.49990, -0.49990], abs=1e-5)


def test_leave_one_out_and_centre_by_hand() -> None:
    assert leave_one_out(REWARDS, GROUP) == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])
    assert group_center(REWARDS, GROUP) == pytest.approx([0.75, -0.25, -0.25, -0.25])


@pytest.mark.parametrize("core", [group_norm, group_center, leave_one_out])
def test_a_group_of_one_and_a_group_without_spread_have_no_advantage(core) -> None:
    assert core(np.array([1.0, 0.5, 0.5, 0.5]), np.array([0, 1, 1, 1])) == pytest.approx([0, 0, 0, 0])


rewards_and_groups = st.lists(st.tuples(st.floats(-5, 5, allow_nan=False), st.integers(0, 4)), min_size=1, max_size=24)


@given(rewards_and_groups)
@pytest.mark.parametrize("core", [group_norm, group_center, leave_one_out])
def test_advantages_of_a_group_sum_to_zero_and_ignore_other_groups(core, rows) -> None:
    rewards, groups = np.array([r for r, _ in rows]), np.array([g for _, g in rows])
    whole = core(rewards, groups)
    for group in np.unique(groups):
        where = groups == group
        assert whole[where].sum() == pytest.approx(0, abs=1e-6)
        assert whole[where] == pytest.approx(core(rewards[where], groups[where]))


def reduced(reduction, losses: list[list[float]], episodes: list[int] | None = None) -> float:
    lengths = np.array([len(part) for part in losses])
    weights = reduction(lengths, np.array(episodes or range(len(losses))))
    return float(sum(weight * sum(part) for weight, part in zip(weights, losses, strict=True)))


def test_reductions_by_hand() -> None:
    losses = [[1.0, 1.0], [3.0, 3.0, 3.0, 3.0]]
    assert reduced(token_mean, losses) == pytest.approx(14 / 6)
    assert reduced(sequence_mean_token_mean, losses) == pytest.approx(2.0)
    assert reduced(sequence_mean_token_sum, losses) == pytest.approx(7.0)
    assert reduced(partial(constant_length, horizon=4), losses) == pytest.approx(1.75)


def test_reductions_count_episodes_where_an_episode_has_several_trajectories() -> None:
    split, whole = [[1.0], [1.0], [3.0, 3.0, 3.0, 3.0]], [[1.0, 1.0], [3.0, 3.0, 3.0, 3.0]]
    for reduction in (
        token_mean,
        sequence_mean_token_mean,
        sequence_mean_token_sum,
        partial(constant_length, horizon=4),
    ):
        assert reduced(reduction, split, [0, 0, 1]) == pytest.approx(reduced(reduction, whole))


def test_kl_terms_by_hand() -> None:
    logprobs, reference = torch.tensor([-1.0, -1.0]), torch.tensor([-1.1, -1.0])
    assert k1(logprobs, reference).tolist() == pytest.approx([0.1, 0.0])
    assert k2(logprobs, reference).tolist() == pytest.approx([0.005, 0.0])
    assert k3(logprobs, reference).tolist() == pytest.approx([0.0048374, 0.0], abs=1e-6)
    assert torch.isfinite(k3(torch.tensor([-500.0]), torch.tensor([-1.0]))).all()


def test_every_preset_of_this_slice_is_there_and_each_algorithm_is_hashable_data() -> None:
    assert set(ALGORITHMS) >= {"reinforce", "rloo", "grpo", "dr_grpo", "dapo"}
    for name in ALGORITHMS:
        algorithm = get_algorithm(name)
        assert algorithm.name == name
        with pytest.raises(AttributeError):
            algorithm.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("grop", {}, "Did you mean 'grpo'?"),
        ("grpo", {"clip_hihg": 0.3}, "Did you mean 'clip_high'?"),
        ("grpo", {"clip_high": 0.1}, "clip_high = 0.1 is below clip_low = 0.2"),
        ("grpo", {"clip_low": 0.0}, "must lie between 0 and 1"),
        ("grpo", {"kl_coef": -1}, "must not be negative"),
        ("grpo", {"std": "sample"}, "bessel, population, none"),
        ("dapo", {"dynamic_sampling": "yes"}, "must be of the kind"),
        ("dr_grpo", {"horizon": 0}, "at least 1"),
        ("reinforce", {"baseline_decay": 1.5}, "below 1"),
    ],
)
def test_a_wrong_algorithm_or_option_is_one_sentence_with_the_fix(name, options, says) -> None:
    with pytest.raises(AlgorithmError) as caught:
        get_algorithm(name, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def experience(rewards: list[float], groups: list[int], kl: list[list[float]] | None = None) -> Experience:
    """Episodes of one trajectory each: one observed token, then two sampled ones."""
    trajectory = Trajectory((1, 2, 3), (False, True, True), (0.0, -1.0, -1.0), (-1, 0, 0))
    episodes = [
        Episode(str(i), "e", str(i), str(g), 0, r, {}, None, True, False, None, "answer", (), (trajectory,))
        for i, (r, g) in enumerate(zip(rewards, groups, strict=True))
    ]
    kl_E = None if kl is None else [[np.array(part)] for part in kl]
    return Experience(episodes, np.array(rewards), np.array(groups), kl_E)


def test_every_sampled_token_gets_its_episode_s_advantage_and_no_other_token() -> None:
    advantages, _ = get_algorithm("rloo").estimator(experience([1.0, 0.0], [0, 0]), {})
    assert [part.tolist() for (part,) in advantages] == [[0.0, 1.0, 1.0], [0.0, -1.0, -1.0]]


def test_kl_in_the_reward_by_hand() -> None:
    """Rewards 1 and 0 less KL 0.1 and 0.3: 0.9 and -0.3, so the advantages are 1.2 and -1.2."""
    kl = [[0.0, 0.05, 0.05], [0.0, 0.1, 0.2]]
    advantages, _ = get_algorithm("rloo", kl_coef=0.1).estimator(experience([1.0, 0.0], [0, 0], kl), {})
    assert [part[1] for (part,) in advantages] == pytest.approx([1.2, -1.2])


def test_the_moving_average_by_hand() -> None:
    """The first batch is its own baseline; then 0.5, 0.8 * 0.5 + 0.2 * 1.0 = 0.6, and so on."""
    algorithm = get_algorithm("reinforce", baseline_decay=0.8)
    first, state = algorithm.estimator(experience([1.0, 0.0], [0, 0]), {})
    assert [part[1] for (part,) in first] == pytest.approx([0.5, -0.5])
    second, state = algorithm.estimator(experience([1.0, 1.0], [1, 1]), state)
    assert [part[1] for (part,) in second] == pytest.approx([0.5, 0.5])
    third, _ = algorithm.estimator(experience([1.0, 0.0], [2, 2]), state)
    assert [part[1] for (part,) in third] == pytest.approx([0.4, -0.6])
    plain, _ = get_algorithm("reinforce").estimator(experience([1.0, 0.25], [0, 0]), {})
    assert [part[1] for (part,) in plain] == [1.0, 0.25]


def test_other_normalisations_of_a_group_by_hand() -> None:
    """Rewards 1, 0, 0, 0 have the population deviation sqrt(3)/4 = 0.433013, and Bessel's is 0.5."""
    assert group_norm(REWARDS, GROUP, std="population", eps=0.0)[0] == pytest.approx(0.75 / 0.4330127)
    assert group_norm(REWARDS, GROUP, std="none") == pytest.approx(group_center(REWARDS, GROUP))
    found, _ = get_algorithm("grpo", std="population", eps=0.0).estimator(experience(list(REWARDS), [0] * 4), {})
    assert found[0][0][1] == pytest.approx(0.75 / 0.4330127)


@pytest.mark.parametrize(
    ("name", "options", "first"),
    [
        ("grpo", {}, 1.499997),
        ("grpo", {"eps": 1e-4}, 1.49970),
        ("dapo", {}, 1.499997),
        ("dr_grpo", {}, 0.75),
        ("rloo", {}, 1.0),
        ("reinforce", {}, 1.0),
    ],
)
def test_presets_use_the_estimator_that_is_named(name: str, options, first: float) -> None:
    found, _ = get_algorithm(name, **options).estimator(experience(list(REWARDS), [0] * 4), {})
    assert found[0][0].tolist() == pytest.approx([0.0, first, first], abs=1e-5)
