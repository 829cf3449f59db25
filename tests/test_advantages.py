"""Advantage estimators, reductions and KL terms against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ludus.agents.trajectory import Episode, Step, Trajectory
from ludus.trainers.algorithms import ALGORITHMS, Algorithm, AlgorithmError, Experience, get_algorithm
from ludus.trainers.algorithms.advantages import (
    entropy_weighted,
    entropy_weighted_sequences,
    gae,
    group_center,
    group_norm,
    leave_one_out,
    length_reward,
    process,
    rewards_to_go,
    score_rewards,
    to_go,
    token_rewards,
    whiten,
)
from ludus.trainers.algorithms.kl import k1, k2, k3
from ludus.trainers.algorithms.losses import reinforce
from ludus.trainers.algorithms.reductions import (
    constant_length,
    sequence_mean_token_mean,
    sequence_mean_token_sum,
    token_mean,
)
from ludus.trainers.policy import teacher_gap

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


def test_distillation_is_from_the_policy_and_not_from_an_earlier_sampler() -> None:
    """Recorded -1 and -1; the policy now says -0.5 and -3, and the teacher -2 and -2."""
    seen = replace(experience([1.0], [0]), teacher_E=[[np.array([0.0, -2.0, -2.0])]])
    found, _ = get_algorithm("opd").estimator(seen, {})
    assert found[0][0].tolist() == [0.0, -1.0, -1.0]
    later = replace(seen, logprobs_E=[[np.array([0.0, -0.5, -3.0])]])
    found, _ = get_algorithm("opd").estimator(later, {})
    assert found[0][0].tolist() == [0.0, -1.5, 1.0]
    assert teacher_gap(later)["kl_teacher"] == pytest.approx(0.25)


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


# --- estimators over tokens ------------------------------------------------------------------------------------------


def test_rewards_to_go_by_hand() -> None:
    assert to_go(np.array([1.0, 0.0, 2.0])).tolist() == [3.0, 2.0, 2.0]
    assert to_go(np.array([1.0, 0.0, 2.0]), gamma=0.5).tolist() == [1.5, 1.0, 2.0]


def test_gae_by_hand() -> None:
    """gamma 0.9, lam 0.5: deltas 0.4 + 0 , 1 + 0.9 * 0.5 - 0.8 = 0.65 for the truncated end, 0.2 for the terminated."""
    rewards, values = np.array([0.0, 1.0]), np.array([0.5, 0.8])
    ended = gae(rewards, values, after=0.0, gamma=0.9, lam=0.5)
    assert ended == pytest.approx([(0.72 - 0.5) + 0.45 * 0.2, 0.2])
    cut = gae(rewards, values, after=0.5, gamma=0.9, lam=0.5)
    assert cut == pytest.approx([(0.72 - 0.5) + 0.45 * 0.65, 0.65])
    assert gae(rewards, values, 0.0, 1.0, 1.0) == pytest.approx(to_go(rewards) - values)


def test_whitening_by_hand() -> None:
    assert whiten(np.array([1.0, 2.0, 3.0])) == pytest.approx([-1.0, 0.0, 1.0])
    assert whiten(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]
    assert whiten(np.array([2.0])).tolist() == [0.0]


def stepwise(rewards: list[tuple[float, float]], total: list[float], kl: bool = False) -> Experience:
    """Episodes of two turns, of two and one sampled tokens with an observed one between, and their steps' rewards."""
    episodes = []
    for i, (first, second) in enumerate(rewards):
        steps = (Step(1, 3, first), Step(4, 5, second))
        mask = (False, True, True, False, True)
        trajectory = Trajectory((1, 2, 3, 4, 5), mask, (0.0, -1.0, -1.0, 0.0, -1.0), (0,) * 5, steps)
        ends = (True, False, None, "answer", (), (trajectory,))
        episodes.append(Episode(str(i), "e", str(i), "0", 0, first + second, {}, None, *ends))
    kl_E = [[np.array([0.0, 0.1, 0.2, 0.0, 0.3])] for _ in episodes] if kl else None
    return Experience(episodes, np.array(total), np.zeros(len(episodes), int), kl_E)


def test_rewards_of_steps_stand_at_their_last_token_and_what_is_charged_besides_at_the_very_last() -> None:
    (paid,) = token_rewards(stepwise([(0.5, 1.0)], [1.25]))
    assert paid == pytest.approx([0.0, 0.5, 0.75])
    (less,) = token_rewards(stepwise([(0.5, 1.0)], [1.5], kl=True))
    assert less == pytest.approx([-0.1, 0.3, 0.7])
    (found,), _ = rewards_to_go(1.0)(stepwise([(0.5, 1.0)], [1.5]), {})
    assert found[0].tolist() == [0.0, 1.5, 1.5, 0.0, 1.0]


def test_reinforce_plus_plus_by_hand() -> None:
    """Two episodes with rewards 1 and 0: all tokens of one have 1 to go, and of the other 0."""
    advantages, _ = get_algorithm("reinforce++", kl_coef=0.0).estimator(stepwise([(0, 1), (0, 0)], [1.0, 0.0]), {})
    height = 0.5 / np.sqrt(0.3 + 1e-8)  # six values, 0.5 from their mean, with the variance 6 / 5 / 4
    assert advantages[0][0] == pytest.approx([0, height, height, 0, height])
    assert advantages[1][0] == pytest.approx([0, -height, -height, 0, -height])
    other, _ = get_algorithm("reinforce++_baseline").estimator(stepwise([(0, 1), (0, 0)], [1.0, 0.0]), {})
    assert other[0][0] == pytest.approx(advantages[0][0])


def test_process_rewards_by_hand() -> None:
    """Scores 0.5, 0.2 and an end reward of 1: 0.5, -0.3 + 1; to go 1.2, 0.7. The other episode has one step: 0."""
    assert score_rewards(np.array([0.5, 0.2])) == pytest.approx([0.5, -0.3])
    assert score_rewards(np.array([0.5, 0.2]), before=0.4) == pytest.approx([0.1, -0.3])
    long, short = process([np.array([0.5, -0.3 + 1]), np.array([0.0])], std="none")
    mean = (1.2 + 0.7 + 0.0) / 3
    assert [*long, *short] == pytest.approx([1.2 - mean, 0.7 - mean, -mean])
    scaled = np.concatenate(process([np.array([0.5, 0.7]), np.array([0.0])]))
    assert scaled == pytest.approx(np.array([*long, *short]) / (np.std([1.2, 0.7, 0.0], ddof=1) + 1e-6))
    assert [part.tolist() for part in process([np.array([0.0, 1.0]), np.array([1.0])])] == [[0.0, 0.0], [0.0]]


def test_prm_grpo_gives_the_tokens_of_a_step_what_it_and_those_after_it_were_paid() -> None:
    paid = stepwise([(0.5, -0.3), (0.0, 0.0)], [1.2, 0.0])  # 1 at the end of the first besides
    advantages, _ = get_algorithm("prm_grpo", std="none").estimator(paid, {})
    assert advantages[0][0] == pytest.approx([0, 1.2 - 0.475, 1.2 - 0.475, 0, 0.7 - 0.475])
    assert advantages[1][0] == pytest.approx([0, -0.475, -0.475, 0, -0.475])


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=2, max_size=6))
def test_where_only_the_end_is_paid_all_steps_of_an_episode_are_alike(ends: list[tuple[float, float]]) -> None:
    """Each episode of two steps then counts twice among the steps, and so has GRPO's advantage, differently scaled."""
    totals = [first + second for first, second in ends]
    found, _ = get_algorithm("prm_grpo", std="none").estimator(stepwise([(0.0, 0.0)] * len(ends), totals), {})
    other, _ = get_algorithm("dr_grpo").estimator(stepwise([(0.0, 0.0)] * len(ends), totals), {})
    for (own,), (theirs,) in zip(found, other, strict=True):
        assert own == pytest.approx(theirs, abs=1e-9)


def test_gtpo_by_hand() -> None:
    """Successes with entropies 1 and 3 at their first tokens share 2 * 0.1; the longer one has its second by itself."""
    rewards, entropies = np.array([1.0, 1.0, 0.0]), [np.array([1.0]), np.array([3.0, 2.0]), np.array([0.5])]
    first, second, third = entropy_weighted(rewards, entropies, normalise="none")
    assert first == pytest.approx([1 + 0.1 * 2 * 0.25])
    assert second == pytest.approx([1 + 0.1 * 2 * 0.75, 1.1])
    assert third == pytest.approx([-1.1])
    failures = entropy_weighted(np.zeros(2), [np.array([1.0]), np.array([3.0])], normalise="none")
    assert [part[0] for part in failures] == pytest.approx([-1 - 0.2 * 0.75, -1 - 0.2 * 0.25])
    alike = entropy_weighted(np.ones(3), entropies) + entropy_weighted(np.zeros(3), entropies)
    assert [part.tolist() for part in alike] == [[0.0], [0.0, 0.0], [0.0]] * 2
    joint = np.concatenate(entropy_weighted(rewards, entropies))
    assert joint.mean() == pytest.approx(0.0, abs=1e-12) and joint.std() == pytest.approx(1.0)


def test_normalising_each_class_by_itself_erases_the_outcome() -> None:
    rewards, entropies = np.array([1.0, 1.0, 0.0, 0.0]), [np.array([v]) for v in (1.0, 3.0, 1.0, 3.0)]
    by_class = entropy_weighted(rewards, entropies, normalise="per_class")
    assert by_class[0] + by_class[1] == pytest.approx(0.0) == by_class[2] + by_class[3]
    lone = entropy_weighted(np.array([1.0, 0.0]), [np.array([1.0]), np.array([1.0])], normalise="per_class")
    assert [part[0] for part in lone] == pytest.approx([1.1, -1.1])  # no spread: as they are


def test_grpo_s_by_hand() -> None:
    found = entropy_weighted_sequences(np.array([1.0, 1.0, 0.0]), np.array([1.0, 3.0, 2.0]), normalise="none")
    assert found == pytest.approx([1.05, 1.15, -1.1])


def test_the_length_reward_of_kimi_by_hand() -> None:
    lengths, groups = np.array([10, 20, 30, 7, 7]), np.array([0, 0, 0, 1, 1])
    right = np.array([True, False, True, True, False])
    assert length_reward(lengths, right, groups) == pytest.approx([0.5, 0.0, -0.5, 0.0, 0.0])
    assert length_reward(lengths, ~right, groups) == pytest.approx([0.0, 0.0, -0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"kl": k1, "kl_in": "loss"}, "expected gradient of k1 in the loss is zero"),
        ({"kl": k3, "kl_in": "reward"}, "k3 in the reward is biased"),
        ({"kl": k1, "kl_in": "reward", "kl_weight": "old"}, "one in the reward needs none"),
        ({"ratio": "sequence", "reduction": token_mean}, "token_mean would count it once for each"),
        ({"ratio": "sequence", "reduction": partial(constant_length, horizon=4)}, "constant_length would count"),
    ],
)
def test_parts_that_make_no_sense_together_are_refused_with_the_reason(parts: dict[str, Any], says: str) -> None:
    sound: dict[str, Any] = {"estimator": rewards_to_go(), "loss": reinforce, "reduction": sequence_mean_token_mean}
    Algorithm("sound", **sound)
    Algorithm("weighed", **sound, kl=k1, kl_weight="old")
    with pytest.raises(AlgorithmError, match=says):
        Algorithm("odd", **{**sound, **parts})


def test_conventions_of_other_libraries_are_asked_for_by_name() -> None:
    found, _ = get_algorithm("grpo", like="trl").estimator(experience(list(REWARDS), [0] * 4), {})
    assert found[0][0][1] == pytest.approx(1.49970, abs=1e-5)
    assert get_algorithm("rloo", like="trl").ratio == "sequence"
    with pytest.raises(AlgorithmError, match="dr_grpo has no conventions of its own like='trl'"):
        get_algorithm("dr_grpo", like="trl")


def test_verl_pays_the_only_episode_of_a_task_its_reward() -> None:
    step = 1 / np.sqrt(3)
    for name in ("grpo", "dapo", "gspo", "cispo", "sapo"):
        verl = get_algorithm(name, like="verl")
        found, _ = verl.estimator(experience([1.0, 0.5, 0.0, 0.5], [0, 1, 1, 1]), {})
        assert [part[0][1] for part in found] == pytest.approx([1 / (1 + 1e-6), step, -2 * step, step], abs=1e-5)
        assert ("siblings" in verl.needs) == verl.dynamic_sampling and "siblings" in get_algorithm(name).needs
        alone, _ = get_algorithm(name).estimator(experience([1.0], [0]), {})
        assert alone[0][0][1] == 0.0


def test_a_baseline_may_be_the_mean_of_the_batch() -> None:
    algorithm = get_algorithm("reinforce_baseline", baseline="batch")
    found, state = algorithm.estimator(experience([1.0, 0.0, 0.5], [0, 1, 2]), {})
    assert [part[0][1] for part in found] == [0.5, -0.5, 0.0] and state == {}
    with pytest.raises(AlgorithmError, match="baseline = 'best' must be moving or batch"):
        get_algorithm("reinforce_baseline", baseline="best")


def test_shuffled_rewards_stand_at_the_end_whatever_steps_earned() -> None:
    """Else the steps' own rewards would tell tokens what shuffling hides from episodes."""
    own = stepwise([(0.5, 1.0), (0.0, 0.0)], [0.0, 1.5])
    kept, ended = (token_rewards(replace(own, paid_by_step=by_step)) for by_step in (True, False))
    assert kept[0].tolist() == [0.0, 0.5, -0.5]
    assert [part.tolist() for part in ended] == [[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]]


def test_remax_by_hand() -> None:
    found, _ = get_algorithm("remax").estimator(
        replace(experience([1.0, 0.25], [0, 1]), greedy_E=np.array([0.5, 1.0])), {}
    )
    assert [part.tolist() for (part,) in found] == [[0.0, 0.5, 0.5], [0.0, -0.75, -0.75]]
