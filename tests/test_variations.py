"""Options that every preset takes: what they change, against numbers worked out by hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from test_policy_gradient import SHAPE, make_episodes, make_rows

from ludus.agents.model import create_tiny_model
from ludus.agents.trajectory import Trajectory
from ludus.algorithm_choice import chosen_algorithm
from ludus.trainers.algorithms import ALGORITHMS, AlgorithmError, Tokens, get_algorithm, reductions
from ludus.trainers.algorithms.corrections import for_engine, truncated_weight
from ludus.trainers.batch import Row, collate, pack_rows
from ludus.trainers.config import PolicyConfig
from ludus.trainers.policy_step import accumulate, weigh
from ludus.trainers.scoring import distributions, entropies
from ludus.trainers.token_gradients import TokenGradients


@pytest.fixture(scope="module")
def model() -> Any:
    return create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.1}), 0)[0]


def apart(policy: list[float], old: list[float], sampler: list[float], advantages: list[float]) -> Tokens:
    """Tokens of two responses, of two tokens and the rest."""
    numbers = [torch.tensor(v, dtype=torch.float64) for v in (policy, old, sampler, advantages)]
    return Tokens(*numbers, torch.tensor([0, 0] + [1] * (len(policy) - 2)))


FAR = apart([-1.0, -1.0, -1.0], [-1.0, -1.5, -1.0], [-2.0, -1.0, -0.7], [1.0, 1.0, -1.0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tis": 2}, [2.0, exp(-0.5), exp(-0.3)]),
        ({"tis": 1.2, "tis_level": "sequence"}, [1.2, 1.2, exp(-0.3)]),
        ({"mis_low": 0.7}, [0.0, 0.0, exp(-0.3)]),
        ({"mis_low": 0.1, "mis_high": 3.0}, [exp(1), exp(-0.5), exp(-0.3)]),
        ({"decoupled": True}, [exp(1), exp(-0.5), exp(-0.3)]),
        ({"drift": 0.2}, [1.0, 1.0, 0.0]),
        ({"drift": 0.2, "drift_from": "old"}, [1.0, 1.0, 1.0]),
    ],
)
def test_corrections_by_hand(options: dict[str, Any], expected: list[float]) -> None:
    (correction,) = get_algorithm("dapo", **options).corrections
    assert correction(FAR).tolist() == pytest.approx(expected)


def test_told_how_to_correct_an_algorithm_corrects_no_second_time() -> None:
    assert for_engine(get_algorithm("grpo"), exact=False).corrections == (truncated_weight,)
    assert for_engine(get_algorithm("grpo"), exact=True).corrections == ()
    assert for_engine(get_algorithm("grpo", tis=0), exact=False).corrections == ()
    for options in ({"tis": 3.0}, {"mis_high": 4.0}, {"decoupled": True}):
        assert len(for_engine(get_algorithm("grpo", **options), exact=False).corrections) == 1
    assert len(for_engine(get_algorithm("v32"), exact=False).corrections) == 2


def test_decoupled_ppo_by_hand(model: Any) -> None:
    """-(old / sampler) min(r A, clip(r) A): clipped around the policy before the step, weighed from the sampler."""
    trajectory = Trajectory((7, 8, 9, 10), (False, True, True, True), (0.0, -3.0, -5.0, -4.0), (-1, 0, 0, 0))
    row = Row(trajectory, np.array([0.0, 1.0, -1.0, 2.0]), 0.5)
    batch = collate([row], pack_rows([row]), model.config.vocab_size, torch.device("cpu"))
    logprobs = distributions(model, batch).gather(1, batch.targets_N[:, None])[:, 0].tolist()
    ratios = [1.5, 0.9, 1.1]
    old = np.array([0.0, *(value - log(r) for value, r in zip(logprobs, ratios, strict=True))])
    model.zero_grad()
    found = accumulate(get_algorithm("dapo", decoupled=True), model, [replace(row, old=old)], 100)["loss"]
    surrogate = [-1.28, 0.9, -2.2]
    weights = np.exp(old - np.array(trajectory.logprobs))[1:]
    assert found == pytest.approx(0.5 * float((weights * surrogate).sum()), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dapo", {"tis": 1.5, "tis_level": "sequence", "entropy_coef": 0.1}),
        ("gspo", {"mis_low": 0.2, "mis_high": 5.0, "clip_low": 0.1, "clip_high": 0.2}),
        ("grpo", {"decoupled": True, "dual_clip": 2, "kl_form": "k1_straight", "counts": "trajectories"}),
        ("kimi_k15", {"per_token": True, "drift": 0.2, "drift_from": "old"}),
        ("grpo", {"kl_form": "k1", "kl_weight": "sampler"}),
    ],
)
def test_the_gradient_does_not_depend_on_how_the_step_is_cut(name: str, options: dict[str, Any], model: Any) -> None:
    algorithm = get_algorithm(name, **options)
    rows = make_rows(name, make_episodes(7), model)

    def gradient(rows: list[Row], tokens: int) -> torch.Tensor:
        model.zero_grad()
        accumulate(algorithm, model, weigh(algorithm, rows), tokens)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole = gradient(rows, 100_000)
    assert whole.abs().max() > 0
    assert torch.allclose(whole, gradient(rows[::-1], 60), atol=2e-5 * max(1.0, float(whole.abs().max())))


def test_weights_multiply_the_policy_loss_and_not_the_kl_term(model: Any) -> None:
    rows = make_rows("grpo", make_episodes(3), model)
    nothing = [replace(row, advantages=0 * row.advantages) for row in rows]
    plain, weighed = (
        accumulate(get_algorithm("grpo", kl_coef=0.5, **options), model, nothing, 1000)["loss"]
        for options in ({}, {"tis": 1.5})
    )
    assert plain == pytest.approx(weighed) and plain > 0
    plain, weighed = (
        accumulate(get_algorithm("grpo", kl_coef=0.0, **options), model, rows, 1000)["loss"]
        for options in ({}, {"tis": 1.5})
    )
    assert plain != pytest.approx(weighed)


def test_the_dual_clip_is_an_option_of_every_clipped_ratio() -> None:
    five = apart([log(5.0) - 1.0, -1.0, -1.0], [-1.0] * 3, [-1.0] * 3, [-2.0, 1.0, -1.0])
    assert get_algorithm("grpo", dual_clip=3).loss(five)[0].tolist() == pytest.approx([6.0, -1.0, 1.0])
    assert get_algorithm("grpo").loss(five)[0].tolist() == pytest.approx([10.0, -1.0, 1.0])
    taken = set()
    for name in ALGORITHMS:
        try:
            get_algorithm(name, dual_clip=3)
            taken.add(name)
        except AlgorithmError as error:
            assert "does not clip as PPO does" in str(error)
    assert {"grpo", "dapo", "dr_grpo", "ppo", "reinforce++", "v32", "kdrl"} <= taken
    assert not taken & {"reinforce", "gspo", "cispo", "sapo", "kimi_k15", "ppo_kl", "trpo"}


def test_the_entropy_bonus_and_its_gradient_are_those_of_the_sum(model: Any) -> None:
    """Loss 0 but for -0.25 times the entropy over the kept set of each of two tokens, at the temperature 0.8."""
    tokens, mask = (7, 8, 9, 30, 31), (False, False, True, False, True)
    kept = (None, None, (9, 50), None, (31, 40, 41))
    trajectory = Trajectory(tokens, mask, (0.0, 0.0, -1.0, 0.0, -1.0), (-1, -1, 0, -1, 0), temperature=0.8, kept=kept)
    row = Row(trajectory, np.zeros(5), 0.5)
    model.zero_grad()
    found_kept: dict[int, TokenGradients] = {}
    algorithm = get_algorithm("dapo", entropy_coef=0.25)
    loss = accumulate(algorithm, model, [row], 100, keep=found_kept)["loss"]
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()
    model.zero_grad()
    total, each = torch.zeros(()), []
    for place in (2, 4):
        logits = model(torch.tensor([tokens])).logits[0, place - 1, list(kept[place] or ())] / 0.8
        logprobs = torch.log_softmax(logits, -1)
        each.append(-(logprobs.exp() * logprobs).sum())
        total = total - 0.5 * 0.25 * each[-1]
    total.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert loss == pytest.approx(float(total.detach()), rel=1e-4)
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
    whole = found_kept[0].whole
    assert whole[[2, 4]] == pytest.approx([-0.25 * float(value.detach()) for value in each], rel=1e-4)
    assert not whole[[0, 1, 3]].any()


def test_the_gradient_of_the_entropy_equals_finite_differences() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [0, 1, 1, 0, 0]]).bool()

    def of(logits_NV: torch.Tensor) -> torch.Tensor:
        return entropies(torch.log_softmax(logits_NV.masked_fill(~kept, -torch.inf), -1))

    assert torch.autograd.gradcheck(of, (logits,), eps=1e-7)
    even = torch.log_softmax(torch.zeros(1, 4, dtype=torch.float64), -1)
    assert entropies(even).tolist() == pytest.approx([log(4)])


def test_distillation_may_have_the_loss_of_reinforce() -> None:
    two = apart([log(2.0) - 1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0], [0.5, -1.0])
    assert get_algorithm("opd").loss(two)[0].tolist() == pytest.approx([-0.6, 1.0])
    assert get_algorithm("opd", ratio="none").loss(two)[0].tolist() == pytest.approx([-0.5 * (log(2.0) - 1.0), -1.0])
    for options, says in (
        ({"ratio": "sequence"}, "ratio = 'sequence' must be token or none"),
        ({"ratio": "none", "full_vocabulary": True}, "over the whole vocabulary no token has a ratio"),
    ):
        with pytest.raises(AlgorithmError, match=says):
            get_algorithm("opd", **options)


def test_a_reduction_counts_episodes_or_trajectories() -> None:
    """Three and two tokens of one episode, and four of another."""
    rows = [
        Row(
            Trajectory((9,) * (n + 1), (False, *[True] * n), (0.0,) * (n + 1), (0,) * (n + 1)),
            np.ones(n + 1),
            0.0,
            episode=e,
        )
        for n, e in ((3, 0), (2, 0), (4, 1))
    ]
    weights = {
        counts: [row.weight for row in weigh(get_algorithm("grpo", counts=counts), rows)]
        for counts in ("episodes", "trajectories")
    }
    assert weights["episodes"] == pytest.approx([1 / 10, 1 / 10, 1 / 8])
    assert weights["trajectories"] == pytest.approx([1 / 9, 1 / 6, 1 / 12])


def test_every_preset_takes_the_sampling_rules() -> None:
    for name in ALGORITHMS:
        assert get_algorithm(name, drop_truncated=True).drop_truncated
        if name != "opd":  # which learns from no rewards
            assert get_algorithm(name, overlong_buffer=5).overlong_buffer == 5


def test_a_reduction_is_an_option_of_every_preset_that_has_none_of_its_own() -> None:
    found = {}
    for name in ALGORITHMS:
        try:
            found[name] = get_algorithm(name, reduction="sequence_mean_token_mean").reduction
        except AlgorithmError as error:
            assert "leave reduction out" in str(error)
    assert set(ALGORITHMS) - set(found) == {"dr_grpo", "kimi_k15"}
    assert set(found.values()) == {reductions.sequence_mean_token_mean}
    assert get_algorithm("grpo", reduction="token_mean").reduction is reductions.token_mean


def test_verl_bounds_what_a_wrong_token_costs_and_takes_the_mean_over_tokens() -> None:
    five = apart([log(5.0) - 1.0, -1.0, -1.0], [-1.0] * 3, [-1.0] * 3, [-2.0, 1.0, -1.0])
    for name in ("grpo", "dapo", "ppo"):
        verl = get_algorithm(name, like="verl")
        assert verl.reduction is reductions.token_mean
        assert verl.loss(five)[0][0].item() == pytest.approx(6.0)
        assert get_algorithm(name).loss(five)[0][0].item() == pytest.approx(10.0)


def test_a_teacher_s_whole_distribution_needs_no_weights() -> None:
    assert for_engine(get_algorithm("opd", full_vocabulary=True), exact=False).corrections == ()
    assert for_engine(get_algorithm("opd"), exact=False).corrections == (truncated_weight,)
    assert len(get_algorithm("opd", tis=2.0).corrections) == 1


def test_a_convention_of_a_term_that_is_not_there_is_none() -> None:
    assert get_algorithm("grpo", like="trl").kl_weight == "old"
    assert get_algorithm("grpo", like="trl", kl_coef=0.0).kl_weight is None
    assert get_algorithm("grpo", decoupled=False, tis=2).corrections


@pytest.mark.parametrize(
    ("name", "wrong", "says", "right"),
    [
        ("dapo", {"kl_form": "k2"}, "leave kl_form out, or choose grpo", {}),
        ("grpo", {"kl_form": "k2", "kl_coef": 0.0}, "set kl_coef above 0", {"kl_form": "k2"}),
        ("v32", {"kl_form": "k2"}, "set kl_weight: none", {"kl_form": "k2", "kl_weight": "none"}),
        (
            "grpo",
            {"like": "trl", "kl_form": "k2"},
            "set kl_weight: none",
            {"like": "trl", "kl_form": "k2", "kl_weight": "none"},
        ),
        ("grpo", {"kl_coef": 0, "kl_weight": "old"}, "set kl_coef above 0, or kl_weight: none", {"kl_coef": 0}),
        ("grpo", {"like": ["trl"]}, r"like=\['trl'\]; known: trl, verl", {"like": "trl"}),
        ("opd", {"overlong_buffer": 5}, "learns from no reward that overlong_buffer", {"overlong_buffer": 0}),
        ("opd", {"full_vocabulary": True, "tis": 2.0}, "no sampled token that tis could weigh", {"tis": 2.0}),
        ("opd", {"full_vocabulary": True, "mis_low": 0.5}, "no sampled token that mis_low", {"mis_low": 0.5}),
        ("opd", {"full_vocabulary": True, "drift": 0.5}, "no sampled token that drift could", {"drift": 0.5}),
        (
            "opd",
            {"full_vocabulary": True, "clip_low": 0.1},
            "no ratio that clip_low could bound; leave it out, or set full_vocabulary: false",
            {"clip_low": 0.1},
        ),
        (
            "opd",
            {"ratio": "none", "clip_high": 0.3},
            "no ratio that clip_high could bound; leave it out, or set ratio: token",
            {"ratio": "token", "clip_high": 0.3},
        ),
        (
            "rloo",
            {"clip_low": 0.1},
            "no ratio that clip_low could bound; leave it out, or set ratio: sequence_sum",
            {"ratio": "sequence_sum", "clip_low": 0.1},
        ),
        (
            "dapo",
            {"counts": "trajectories"},
            "set reduction: sequence_mean_token_mean",
            {"counts": "trajectories", "reduction": "sequence_mean_token_mean"},
        ),
        ("grpo", {"reduction": "mean"}, "must be one of token_mean, sequence", {"reduction": "token_mean"}),
        ("gspo", {"reduction": "token_mean"}, "token_mean would count it once for each", {}),
    ],
)
def test_what_plays_no_part_is_refused_and_the_sentence_says_what_helps(
    name: str, wrong: dict[str, Any], says: str, right: dict[str, Any]
) -> None:
    with pytest.raises(AlgorithmError, match=says):
        get_algorithm(name, **wrong)
    get_algorithm(name, **right)


def test_a_penalty_over_a_whole_turn_is_refused() -> None:
    config = PolicyConfig(algorithm="dapo", options={"overlong_buffer": 64}, steps=1)
    with pytest.raises(AlgorithmError, match=r"overlong_buffer = 64 tokens .* sampling\.max_tokens = 64; lower"):
        chosen_algorithm(config, 64)
    assert chosen_algorithm(config, 65).overlong_buffer == 64


def test_dynamic_sampling_needs_siblings_whatever_a_group_of_one_is_paid() -> None:
    for options in ({"alone": "reward"}, {"like": "verl"}):
        config = PolicyConfig(algorithm="dapo", options=options, group_size=1, steps=1)
        with pytest.raises(AlgorithmError, match="dapo compares episodes of one task"):
            chosen_algorithm(config)
        chosen_algorithm(config.model_copy(update={"options": {**options, "dynamic_sampling": False}}))


def test_the_loss_of_kimi_can_be_divided_by_the_length() -> None:
    rows = [Row(Trajectory((9,) * 5, (False, *[True] * 4), (0.0,) * 5, (0,) * 5), np.ones(5), 0.0)]
    assert weigh(get_algorithm("kimi_k15"), rows)[0].weight == 1.0
    assert weigh(get_algorithm("kimi_k15", per_token=True), rows)[0].weight == 0.25


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tis": 2.0, "mis_low": 0.5}, "tis and mis are weights of the same tokens; choose one"),
        ({"decoupled": True, "tis": 2.0}, "tis and decoupled are weights of the same tokens"),
        ({"tis": 0.5}, "tis = 0.5 must be at least 1, or 0 for no weights at all"),
        ({"tis_level": "sequence"}, "tis_level says what tis weighs; set tis"),
        ({"tis": 2.0, "tis_level": "word"}, "must be one of token, sequence"),
        ({"mis_low": 1.5}, "mis_low = 1.5 must lie from 0 to below 1"),
        ({"drift": 0}, "drift = 0 must be above 0 nats a token"),
        ({"drift_from": "old"}, "drift_from says from where drift is measured; set drift, too"),
        ({"dual_clip": 1.0}, "dual_clip = 1.0 must be above 1"),
        ({"entropy_coef": -0.1}, "entropy_coef = -0.1 must not be negative"),
        ({"entropy_coef": "high"}, "entropy_coef = 'high' must be a number"),
        ({"overlong_buffer": 1.5}, "overlong_buffer = 1.5 must be a whole number"),
        ({"overlong_buffer": -1}, "overlong_buffer = -1 must not be negative"),
        ({"decoupled": 1}, "decoupled = 1 must be true or false"),
        ({"counts": "tokens"}, "counts = 'tokens' must be one of episodes, trajectories"),
        ({"entropy_cof": 0.1}, "grpo has no option 'entropy_cof'. Did you mean 'entropy_coef'"),
        ({"alone": "first"}, "grpo.alone = 'first' must be zero or reward"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(options: dict[str, Any], says: str) -> None:
    with pytest.raises(AlgorithmError, match=says):
        get_algorithm("grpo", **options)
