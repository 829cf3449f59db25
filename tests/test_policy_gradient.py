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
from ludus.trainers.algorithms import ALGORITHMS, Experience, get_algorithm
from ludus.trainers.batch import Pack, Row, collate, micro_batches, pack_rows
from ludus.trainers.policy_step import accumulate, build_rows, frozen_logprobs, weigh
from ludus.trainers.scoring import score

SHAPE = TinyModel(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64)
PRESETS = {
    "reinforce": {"baseline_decay": 0.5},
    "rloo": {"kl_coef": 0.1},
    "grpo": {"kl_coef": 0.1},
    "dr_grpo": {},
    "dapo": {},
    "reinforce_baseline": {},
    "reinforce++": {"kl_coef": 0.1},
    "reinforce++_baseline": {"kl_coef": 0.1},
    "remax": {"kl_coef": 0.1},
    "ppo": {"kl_coef": 0.1},
    "ppo_kl": {},
    "trpo": {},
    "gspo": {"clip_low": 0.1, "clip_high": 0.2},
    "cispo": {},
    "sapo": {},
    "prm_grpo": {"kl_coef": 0.1},
    "gtpo": {},
    "grpo_s": {},
    "kimi_k15": {},
    "v32": {"kl_coef": 0.1, "drift": 0.1},
    "long2short": {},
    "opd": {"full_vocabulary": True},
    "kdrl": {"kl_coef": 0.1},
}
TEACHER = create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.1}), 1)[0].requires_grad_(False)


def test_every_preset_is_here() -> None:
    assert set(PRESETS) == set(ALGORITHMS)


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
    rng = np.random.default_rng(2)
    entropies = [[rng.random(len(t.mask)) for t in episode.trajectories] for episode in episodes]
    groups = np.array([int(episode.group) for episode in episodes])
    values = [[rng.random(len(t.mask) + 1) for t in episode.trajectories] for episode in episodes]
    greedy = rng.random(len(rewards))
    teacher = [[-rng.random(len(t.mask)) for t in episode.trajectories] for episode in episodes]
    experience = Experience(episodes, rewards, groups, None, entropies, greedy, values, teacher)
    advantages, _ = algorithm.estimator(experience, {"baseline": 0.3})
    rows = build_rows(algorithm, episodes, advantages)
    rng = np.random.default_rng(1)

    def near(row: Row) -> np.ndarray:
        return np.array(row.trajectory.logprobs) + 0.1 * rng.normal(size=len(row.trajectory.mask))

    return [replace(row, old=near(row), reference=near(row)) for row in rows]


def gradient(name: str, rows: list[Row], model, tokens: int) -> torch.Tensor:
    model.zero_grad()
    accumulate(get_algorithm(name, **PRESETS[name]), model, rows, tokens, teacher=TEACHER)
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


def test_threads_do_not_change_a_bit_of_the_gradient() -> None:
    """Many answers to one question: their first tokens have the same predictor, whose gradients threads add up."""
    wide = create_tiny_model(SHAPE.model_copy(update={"hidden_size": 128, "layers": 1, "initializer_range": 0.1}), 0)[0]
    rng = np.random.default_rng(0)
    prompt = tuple(int(token) for token in rng.integers(7, 90, 30))
    rows = [
        Row(Trajectory((*prompt, token), (False,) * 30 + (True,), (0.0,) * 31, (0,) * 31), rng.normal(size=31), 1.0)
        for token in rng.integers(7, 90, 600).tolist()
    ]
    batch = collate(rows, [Pack(tuple(range(600)), 30, 630)], wide.config.vocab_size, torch.device("cpu"))

    def found() -> torch.Tensor:
        wide.zero_grad()
        (score(wide, batch)[0] * batch.advantages_N).sum().backward()
        return torch.cat([p.grad.flatten() for p in wide.parameters()])

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        first = found()
        assert first.abs().max() > 0
        assert all(torch.equal(found(), first) for _ in range(5))
    finally:
        torch.set_num_threads(threads)


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
        gradient("reinforce", weigh(algorithm, [Row(trajectory, a, 0.0)]), model, 1000) for (a,) in (spoiled, clean)
    ]
    assert torch.equal(*gradients)


def test_dapo_can_leave_truncated_episodes_out_of_the_loss() -> None:
    episodes = make_episodes(2)
    episodes[0] = replace(episodes[0], terminated=False, truncated=True, stop_reason="length")
    # Out of turns is no reason: whoever calls tools until the end has to pay for it.
    episodes[1] = replace(episodes[1], terminated=False, truncated=True, stop_reason="max_turns")
    advantages = [[np.zeros(len(t.mask)) for t in episode.trajectories] for episode in episodes]
    assert len(build_rows(get_algorithm("dapo"), episodes, advantages)) == len(episodes)
    assert len(build_rows(get_algorithm("dapo", drop_truncated=True), episodes, advantages)) == len(episodes) - 1


# Against the formula, token by token


def weights_by_hand(name: str, rows: list[Row], episode_of: list[int], horizon: int) -> list[float]:
    """Each token's share of the loss: written out from the definitions, one episode after the other."""
    tokens = {
        e: sum(sum(r.trajectory.mask) for r, o in zip(rows, episode_of, strict=True) if o == e) for e in episode_of
    }
    episodes = len(tokens)
    if name in ("reinforce", "reinforce_baseline", "rloo", "remax", "kimi_k15"):
        return [1 / episodes for _ in rows]
    if name in ("grpo", "gspo", "sapo", "grpo_s", "v32"):
        return [1 / (episodes * tokens[e]) for e in episode_of]
    if name == "dr_grpo":
        return [1 / (episodes * horizon) for _ in rows]
    return [1 / sum(tokens.values()) for _ in rows]


def loss_by_hand(name: str, model, rows: list[Row], weights: list[float]) -> torch.Tensor:
    """One sequence at a time through the module, one token at a time through the formula, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for row, weight in zip(rows, weights, strict=True):
        trajectory = row.trajectory
        logits = model(torch.tensor([trajectory.token_ids])).logits[0]
        for t, sampled in enumerate(trajectory.mask):
            if not sampled:
                continue
            scaled = logits[t - 1] / trajectory.temperature
            if trajectory.kept is not None:
                kept = list(trajectory.kept[t])
                logprob = scaled[trajectory.token_ids[t]] - torch.logsumexp(scaled[kept], 0)
            else:
                logprob = scaled[trajectory.token_ids[t]] - torch.logsumexp(scaled, 0)
            advantage = float(row.advantages[t])
            if name in ("reinforce", "rloo"):
                loss = -advantage * logprob
            else:
                high = 0.28 if name == "dapo" else 0.2
                ratio = (logprob - float(row.old[t])).exp()
                loss = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1 + high) * advantage)
            if name == "grpo":
                difference = float(row.reference[t]) - logprob
                loss = loss + 0.1 * (difference.exp() - 1 - difference)
            total = total + weight * loss
    return total


@pytest.mark.parametrize("name", ["dapo", "dr_grpo", "grpo", "reinforce", "rloo"])
@pytest.mark.parametrize(("temperature", "truncated"), [(1.0, False), (0.7, False), (1.3, True)])
def test_the_gradient_is_that_of_the_formula(name: str, temperature: float, truncated: bool, model) -> None:
    import copy

    rng = np.random.default_rng(4)
    episodes = []
    for episode in make_episodes(9):
        (t,) = episode.trajectories
        kept = tuple(
            tuple(sorted({token, *rng.integers(7, 90, 30).tolist()})) if sampled else None
            for token, sampled in zip(t.token_ids, t.mask, strict=True)
        )
        episodes.append(
            replace(episode, trajectories=(replace(t, temperature=temperature, kept=kept if truncated else None),))
        )
    rows = make_rows(name, episodes, model)
    # An old policy near the present one, so that some ratios are clipped on either side and some are not.
    near = frozen_logprobs(model, rows, 10_000)
    rows = [
        replace(
            row,
            old=logprobs + 0.2 * rng.normal(size=len(logprobs)),
            reference=logprobs + 0.3 * rng.normal(size=len(logprobs)),
        )
        for row, logprobs in zip(rows, near, strict=True)
    ]
    double = copy.deepcopy(model).double()
    weights = weights_by_hand(name, rows, list(range(len(rows))), horizon=64)
    loss = loss_by_hand(name, double, rows, weights)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in double.parameters() if p.grad is not None])
    model.zero_grad()
    found = accumulate(get_algorithm(name, **PRESETS[name]), model, rows, 300)
    gradient_ = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()
    assert found["loss"] == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-6)
    assert expected.abs().max() > 1e-3
    assert (gradient_ - expected).norm() < 1e-4 * expected.norm()


def test_the_weights_of_presets_count_episodes_of_several_trajectories_once() -> None:
    """Five tokens of one episode in two trajectories, and one episode of four tokens."""
    parts = [(3, 0), (2, 0), (4, 1)]
    rows = [
        Row(
            Trajectory((9,) * (n + 1), (False, *[True] * n), (0.0,) * (n + 1), (0,) * (n + 1)),
            np.ones(n + 1),
            0.0,
            episode=episode,
        )
        for n, episode in parts
    ]
    for name in PRESETS:
        found = [row.weight for row in weigh(get_algorithm(name, **PRESETS[name]), rows)]
        assert found == pytest.approx(weights_by_hand(name, rows, [e for _, e in parts], horizon=64)), name


def test_what_sampled_nothing_has_no_log_probability_and_breaks_nothing(model) -> None:
    """Such as an episode whose prompt filled the context."""
    empty = Row(Trajectory((10, 20, 30), (False,) * 3, (0.0,) * 3, (-1,) * 3), np.zeros(3), 0.0)
    (found,) = frozen_logprobs(model, [empty], 100)
    assert found.tolist() == [0.0, 0.0, 0.0]
    episode = replace(make_episodes(0, groups=1, size=1)[0], trajectories=(empty.trajectory,))
    assert build_rows(get_algorithm("grpo"), [episode], [[np.zeros(3)]]) == []


def test_stored_log_probabilities_are_those_of_the_trainer(model) -> None:
    """What the engine sampled over several turns, truncated and at a temperature, the trainer computes again."""
    import asyncio

    from ludus.agents.engine import Sampling
    from ludus.agents.model import character_tokenizer
    from ludus.agents.torch_engine import TorchEngine

    engine = TorchEngine(model, character_tokenizer(), max_length=200)

    async def converse(i: int, sampling: Sampling) -> Trajectory:
        rng = np.random.default_rng(i)
        tokens, mask, logprobs, kept = [], [], [], []
        for turn in range(3):
            seen = rng.integers(7, 90, 5 + i).tolist()
            done = await engine.generate([*tokens, *seen], replace(sampling, seed=10 * i + turn), session=str(i))
            tokens += [*seen, *done.token_ids]
            mask += [False] * len(seen) + [True] * len(done.token_ids)
            logprobs += [0.0] * len(seen) + list(done.logprobs)
            kept += [None] * len(seen) + list(done.kept or [None] * len(done.token_ids))
        parts = tuple(tokens), tuple(mask), tuple(logprobs), (0,) * len(tokens)
        return Trajectory(*parts, kept=tuple(kept) if sampling.top_p < 1 else None, temperature=sampling.temperature)

    async def everything(sampling: Sampling) -> list[Trajectory]:
        return await asyncio.gather(*(converse(i, sampling) for i in range(6)))

    for temperature, top_p in ((1.0, 1.0), (0.6, 1.0), (1.0, 0.7), (1.6, 0.9)):
        found = asyncio.run(everything(Sampling(temperature=temperature, top_p=top_p, max_tokens=15)))
        rows = [Row(trajectory, np.zeros(len(trajectory.mask)), 0.0) for trajectory in found]
        for row, logprobs in zip(rows, frozen_logprobs(model, rows, 400), strict=True):
            assert logprobs == pytest.approx(np.array(row.trajectory.logprobs), abs=1e-4)


# From a teacher


@pytest.mark.parametrize("truncated", [False, True])
def test_the_full_divergence_from_a_teacher_is_that_of_the_sum(truncated: bool, model) -> None:
    tokens, mask = (7, 8, 9, 30, 31), (False, False, True, False, True)
    kept = (None, None, (9, 50), None, (31, 40, 41)) if truncated else None
    trajectory = Trajectory(tokens, mask, (0.0, 0.0, -1.0, 0.0, -1.0), (-1, -1, 0, -1, 0), temperature=0.8, kept=kept)
    model.zero_grad()
    algorithm = get_algorithm("opd", full_vocabulary=True)
    row = Row(trajectory, np.zeros(5), 0.5)
    curves = accumulate(algorithm, model, [row], 100, teacher=TEACHER)
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()
    model.zero_grad()
    total = torch.zeros(())
    for place in (2, 4):
        ids = list(kept[place]) if kept else list(range(model.config.vocab_size))
        policy, teacher = (
            torch.log_softmax(one(torch.tensor([tokens])).logits[0, place - 1, ids] / 0.8, -1)
            for one in (model, TEACHER)
        )
        total = total + (policy.exp() * (policy - teacher)).sum()
    (0.5 * total).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert curves["kl_teacher"] == pytest.approx(float(total.detach()) / 2, rel=1e-4)
    assert curves["loss"] == pytest.approx(0.5 * float(total.detach()), rel=1e-4)
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_a_teacher_has_a_say_only_where_little_was_paid(model) -> None:
    episodes = [replace(episode, reward=float(i % 2)) for i, episode in enumerate(make_episodes(5, groups=1))]
    advantages = [[np.zeros(len(t.mask)) for t in episode.trajectories] for episode in episodes]
    rows = build_rows(get_algorithm("kdrl", kl_coef=0.1), episodes, advantages)
    assert [row.kl_scale for row in rows] == [1.0, 0.0, 1.0, 0.0]
    rows = [replace(row, reference=np.array(row.trajectory.logprobs) - 1) for row in rows]
    paid, unpaid = (gradient("kdrl", rows[start::2], model, 1000) for start in (1, 0))
    assert not paid.any() and unpaid.abs().max() > 0


def test_trajectories_of_one_episode_stay_one_in_every_minibatch() -> None:
    """Two trajectories of one episode of 5 tokens in all, beside nothing else."""
    rows = [
        Row(Trajectory((9,) * (n + 1), (False, *[True] * n), (0.0,) * (n + 1), (0,) * (n + 1)), np.ones(n + 1), 0.0)
        for n in (3, 2)
    ]
    assert [row.weight for row in weigh(get_algorithm("grpo"), rows)] == pytest.approx([1 / 5, 1 / 5])


def test_distributions_of_different_padded_widths_are_compared_where_both_have_tokens() -> None:
    from ludus.trainers.scoring import reverse_kl

    narrow = torch.log_softmax(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), -1)
    wide = torch.cat([narrow, torch.full((3, 2), -50.0)], 1)
    assert torch.allclose(reverse_kl(narrow, wide), torch.zeros(3), atol=1e-6)
    assert torch.allclose(reverse_kl(wide, narrow), torch.zeros(3), atol=1e-6)


def test_rows_of_different_temperatures_are_not_mixed(model) -> None:
    rows = [
        Row(Trajectory((7, 8), (False, True), (0.0, -1.0), (0, 0), temperature=t), np.zeros(2), 1.0) for t in (0.5, 1.0)
    ]
    with pytest.raises(ValueError, match="sampled at the temperatures"):
        collate(rows, pack_rows(rows), 103, torch.device("cpu"))
