"""The trainers: what a step learns from, what it refuses, and what it reports."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ludus.agents.config import TinyModel
from ludus.agents.engine import Sampling
from ludus.agents.model import create_tiny_model
from ludus.agents.rollout import Arena, EpisodesFailedError, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.trajectory import Episode, Trajectory
from ludus.envs.source import ListSource, ProceduralSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.envs.word_math import WordMath
from ludus.trainers.algorithms import get_algorithm
from ludus.trainers.batch import Row
from ludus.trainers.config import CriticConfig, OptimizerConfig, PolicyConfig, SFTConfig
from ludus.trainers.critic import Critic
from ludus.trainers.demonstrations import Demonstrations
from ludus.trainers.optimizer import NonFiniteError, apply_step, build_optimizer, learning_rate
from ludus.trainers.policy import PolicyTrainer, StarvedError
from ludus.trainers.sft import sft_step, train_sft
from ludus.trainers.task_stream import TaskStream
from ludus.trainers.token_gradients import TokenGradients
from ludus.verifiers.verdict import InfrastructureError, Verdict

SHAPE = TinyModel(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64, initializer_range=0.2)


class Vowels(TextEnv):
    """Pays for the share of vowels in the answer, so that a small model learns it in seconds."""

    mode = "share"

    def __init__(self, mode: str = "share") -> None:
        super().__init__(ProceduralSource(lambda rng, i: Task(str(i), f"say {int(rng.integers(10))}", None)))
        self.mode = mode

    def verify(self, task: Task, response: str) -> Verdict:
        if self.mode == "wrong":
            return Verdict.wrong("always")
        if self.mode == "broken" or (self.mode == "flaky" and int(task.id) % 2):
            raise InfrastructureError("the grader is away")
        share = sum(c in "aeiou" for c in response) / max(len(response), 1)
        return Verdict.correct("some vowels") if share > 0.15 else Verdict.wrong("few vowels")


class Notes:
    """A recorder and display that keep what they are told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def log(self, phase: str, step: int, **values: Any) -> None:
        self.rows.append({"phase": phase, "step": step, **values})

    def write_episodes(self, label: str, rows: list[dict[str, Any]]) -> None: ...

    def metrics_offset(self) -> int:
        return 0

    def phase(self, name: str, total: int) -> None: ...

    def update(self, step: int, **shown: object) -> None: ...

    def note(self, text: str) -> None: ...


class Run:
    """A policy trainer over small environments, closed at the end."""

    def __init__(self, *envs: tuple[str, Any, float], algorithm: str = "grpo", options=None, **config: Any) -> None:
        self.model, tokenizer = create_tiny_model(SHAPE, 0)
        engine = TorchEngine(self.model, tokenizer, slots=32, max_length=120)
        arenas = [(Arena.build(name, make, tokenizer), weight) for name, make, weight in envs]
        self.rollout = Rollout(engine, {arena.name: arena for arena, _ in arenas}, concurrency=32)
        settings = PolicyConfig(
            **{"steps": 3, "groups": 4, "group_size": 4, "optimizer": OptimizerConfig(lr=3e-3), **config}
        )
        self.notes = Notes()
        self.kept: list[tuple[list[Episode], list[list[np.ndarray]]]] = []
        self.gradients: list[list[list[TokenGradients | None]]] = []
        self.algorithm = get_algorithm(algorithm, **(options if options is not None else {}))
        critic = Critic(self.model) if "values" in self.algorithm.needs else None
        self.trainer = PolicyTrainer(
            model=self.model,
            optimizer=build_optimizer(self.model, settings.optimizer),
            engine=engine,
            rollout=self.rollout,
            stream=TaskStream(arenas, 1, settings.group_size, Sampling(max_tokens=8)),
            algorithm=self.algorithm,
            critic=critic,
            critic_optimizer=None if critic is None else build_optimizer(critic, settings.critic.optimizer),
            config=settings,
            seed=0,
            recorder=self.notes,
            show=self.notes,
            reference=create_tiny_model(SHAPE, 0)[0].requires_grad_(False),
            teacher=create_tiny_model(SHAPE, 1)[0].requires_grad_(False) if "teacher" in self.algorithm.needs else None,
            keep_episodes=lambda step, episodes, advantages, gradients: self.keep(episodes, advantages, gradients),
        )

    def keep(self, episodes: list[Episode], advantages: list[list[np.ndarray]], gradients: Any) -> None:
        self.kept.append((episodes, advantages))
        self.gradients.append(gradients)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.rollout.close()

    def train(self) -> list[dict[str, Any]]:
        self.trainer.train(0, lambda step: None)
        return self.notes.rows


def one_turn(mode: str = "share"):
    """An environment in which every turn ends, because its length limit is no reason to cut it."""

    class Ended(Vowels):
        pass

    return lambda: Ended(mode)


def ended(run: Run) -> Run:
    """Let every token end a turn with some probability: untrained models hardly ever end one by themselves."""
    with torch.no_grad():
        run.model.lm_head.weight[run.trainer.engine.end_id] *= 3
    run.trainer.engine.load_weights(run.model, 0)
    return run


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("reinforce", {"baseline_decay": 0.9}),
        ("rloo", {"kl_coef": 0.01}),
        ("grpo", {"kl_coef": 0.01}),
        ("dr_grpo", {"horizon": 8}),
        ("dapo", {"overlong_buffer": 2}),
        ("reinforce_baseline", {}),
        ("reinforce++", {"kl_coef": 0.01}),
        ("reinforce++_baseline", {"kl_coef": 0.01}),
        ("remax", {"kl_coef": 0.01}),
        ("ppo", {"kl_coef": 0.01}),
        ("trpo", {}),
        ("trpo", {"critic": False}),
        ("gspo", {}),
        ("cispo", {}),
        ("sapo", {}),
        ("prm_grpo", {"kl_coef": 0.01}),
        ("gtpo", {}),
        ("grpo_s", {}),
        ("kimi_k15", {}),
        ("v32", {"kl_coef": 0.01}),
        ("long2short", {}),
        ("opd", {}),
        ("kdrl", {}),
    ],
)
def test_every_preset_takes_steps_that_change_the_policy_and_stay_finite(algorithm: str, options) -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm=algorithm, options=options, groups=8)) as run:
        before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        rows = run.train()
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
    assert all(abs(row["kl_sampler"]) < 1e-4 for row in rows)


@pytest.mark.parametrize("full_vocabulary", [False, True])
def test_distillation_brings_the_policy_nearer_to_its_teacher(full_vocabulary: bool) -> None:
    options = {"full_vocabulary": full_vocabulary}
    with ended(Run(("vowels", one_turn("wrong"), 1.0), algorithm="opd", options=options, groups=16, steps=15)) as run:
        run.train()
        first, last = (
            np.concatenate(
                [
                    advantages[np.array(t.mask)]
                    for episode, own in zip(*kept, strict=True)
                    for t, advantages in zip(episode.trajectories, own, strict=True)
                ]
            )
            for kept in (run.kept[0], run.kept[-1])
        )
        curve = [row["kl_teacher"] for row in run.notes.rows]
    assert last.mean() > first.mean() + 0.1  # advantages are log T - log p
    assert curve[-1] < curve[0] - 0.1


def test_the_price_of_the_teacher_falls_with_each_step() -> None:
    options = {"kl_coef": 0.1, "kl_step": 0.04, "kl_least": 0.03}
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="kdrl", options=options)) as run:
        rows = run.train()
    assert [row["kl_coef"] for row in rows] == pytest.approx([0.1, 0.06, 0.03])
    assert all("kl_teacher" in row for row in rows)


def test_remax_says_why_where_no_greedy_episode_could_be_judged() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="remax", groups=2)) as run:
        play = run.trainer.rollout.run

        def failing(requests: Any, **rest: Any) -> list[Episode]:
            return [
                replace(e, reward=None, error="the lights went out") if e.id.endswith("/greedy") else e
                for e in play(requests, **rest)
            ]

        run.trainer.rollout.run = failing  # type: ignore[method-assign]
        with pytest.raises(EpisodesFailedError, match="the lights went out"):
            run.trainer.step(0)


def test_a_critic_learns_what_comes_and_first_by_itself() -> None:
    critic = CriticConfig(optimizer=OptimizerConfig(lr=3e-3), warmup_steps=2)
    with ended(
        Run(("vowels", one_turn(), 1.0), algorithm="ppo", groups=8, minibatches=2, steps=12, critic=critic)
    ) as run:
        before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        run.trainer.step(0)
        run.trainer.step(1)
        assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
        for step in range(2, 12):
            run.trainer.step(step)
        assert any(not torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
        rows = run.notes.rows
    assert "grad_norm" not in rows[0] and "grad_norm" in rows[2]
    assert rows[-1]["value_loss"] < rows[0]["value_loss"]
    assert abs(rows[-1]["value"] - rows[-1]["return"]) < abs(rows[0]["value"] - rows[0]["return"])


def test_the_price_of_the_divergence_follows_its_target_and_epochs_go_through_the_rollout_again() -> None:
    config = {"groups": 4, "minibatches": 2, "epochs": 2, "steps": 3}
    prices = []
    for target in (1e-9, 1e9):
        run = Run(("vowels", one_turn(), 1.0), algorithm="ppo_kl", options={"kl_target": target}, **config)
        with ended(run):
            rows = run.train()
        prices.append([row["kl_coef"] for row in rows])
        assert all(row["kl_old"] >= 0 for row in rows) and rows[-1]["kl_old"] > 0
    assert prices == [[1.0, 2.0, 4.0], [1.0, 0.5, 0.25]]


def test_remax_plays_a_greedy_episode_of_each_task_and_never_trains_on_it() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="remax", groups=4)) as run:
        asked: list[list[Any]] = []
        play = run.trainer.rollout.run
        run.trainer.rollout.run = lambda requests, **rest: asked.append(requests) or play(requests, **rest)
        rows = run.train()
        greedy = {f"{r.group}/greedy": r for r in asked[0] if r.sampling.temperature == 0}
        assert len(greedy) == 4 and all(r.id in greedy for r in greedy.values())
        for episodes, advantages in run.kept:
            assert not [e for e in episodes if e.id.endswith("/greedy")]
            for group in {e.group for e in episodes}:
                baselines = {
                    round(e.reward - max(a.max(), -(-a).max(), key=abs), 6)
                    for e, (a,) in zip(episodes, advantages, strict=True)
                    if e.group == group and e.reward is not None
                }
                assert len(baselines) == 1
    assert rows[0]["episodes"] == 4 * run.trainer.stream.group_size


def test_the_engine_serves_the_newest_weights_at_each_step() -> None:
    with ended(Run(("vowels", one_turn(), 1.0))) as run:
        run.train()
        versions = [
            {v for e in episodes for t in e.trajectories for v in t.versions} - {-1} for episodes, _ in run.kept
        ]
    assert versions == [{0}, {1}, {2}]


def test_failed_episodes_are_in_neither_loss_nor_baseline() -> None:
    with ended(Run(("vowels", one_turn("flaky"), 1.0))) as run:
        rows = run.train()
        for episodes, advantages in run.kept:
            assert all(e.reward is not None and (e.truncated or int(e.task_id) % 2 == 0) for e in episodes)
            assert len(episodes) == len(advantages)
    assert sum(row["errors"] for row in rows) > 0


def test_a_run_in_which_every_episode_fails_says_why() -> None:
    with (
        ended(Run(("vowels", one_turn("broken"), 1.0))) as run,
        pytest.raises(EpisodesFailedError, match="grader is away"),
    ):
        # An episode that is cut at its length limit never reaches the grader, so all must fail or be cut.
        for step in range(50):
            run.trainer.stream.sampling = replace(run.trainer.stream.sampling, max_tokens=60)
            run.trainer.step(step)


def test_dynamic_sampling_refills_groups_until_all_have_spread() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="dapo", steps=2)) as run:
        rows = run.train()
        for episodes, _ in run.kept:
            rewards: dict[str, set[float | None]] = {}
            for episode in episodes:
                rewards.setdefault(episode.group, set()).add(episode.reward)
            assert all(len(values) > 1 for values in rewards.values())
    assert any(row["episodes"] > 16 for row in rows)


def test_starved_dynamic_sampling_stops_with_what_to_change() -> None:
    run = Run(("vowels", one_turn("wrong"), 1.0), algorithm="dapo", options={"max_refills": 2})
    with run, pytest.raises(StarvedError, match=r"no group with spread.*group_size"):
        run.train()


def test_groups_of_several_environments_are_never_mixed_and_come_by_weight() -> None:
    envs = (("a", one_turn(), 3.0), ("b", one_turn(), 1.0))
    with ended(Run(*envs, groups=40, steps=1)) as run:
        run.train()
        ((episodes, _),) = run.kept
    by_group = {episode.group: {e.env for e in episodes if e.group == episode.group} for episode in episodes}
    assert all(len(names) == 1 for names in by_group.values())
    assert 20 <= sum(names == {"a"} for names in by_group.values()) <= 38


def test_shuffled_rewards_keep_their_mean_and_lose_their_episode() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), shuffle_rewards=True, groups=16, steps=1)) as run:
        run.train()
        ((episodes, advantages),) = run.kept
    signs = [
        np.sign(parts[0][np.array(e.trajectories[0].mask)][0]) for e, parts in zip(episodes, advantages, strict=True)
    ]
    rewards = [episode.reward for episode in episodes]
    assert len(set(rewards)) > 1
    assert any(sign > 0 and reward == 0 for sign, reward in zip(signs, rewards, strict=True))


def test_a_gradient_that_is_not_a_number_takes_no_step() -> None:
    model, _ = create_tiny_model(SHAPE, 0)
    optimizer = build_optimizer(model, OptimizerConfig())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    next(model.parameters()).grad = torch.full_like(next(model.parameters()), float("nan"))
    with pytest.raises(NonFiniteError, match="no step was taken"):
        apply_step(optimizer, OptimizerConfig(), 1e-3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_learning_rate_warms_up_and_falls_by_hand() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=4, final_lr_fraction=0.2)
    assert [learning_rate(config, step, 12) for step in (0, 3, 4, 8, 12)] == pytest.approx([0.25, 1, 1, 0.6, 0.2])


@pytest.fixture(scope="module")
def arena():
    return Arena.build("math", lambda: WordMath(system_prompt=""), create_tiny_model(SHAPE, 0)[1])


def test_demonstrations_mask_the_assistant_alone_and_are_the_same_for_the_same_seed(arena) -> None:
    made = [Demonstrations([(arena, 1.0)], 40, 0.5, 7, 300) for _ in range(2)]
    assert made[0].batch(3, 8) == made[1].batch(3, 8)
    assert made[0].batch(3, 8) != Demonstrations([(arena, 1.0)], 40, 0.5, 8, 300).batch(3, 8)
    tokenizer = arena.renderer.tokenizer
    for trajectory in made[0].batch(0, 16):
        text = tokenizer.decode([t for t, m in zip(trajectory.token_ids, trajectory.mask, strict=True) if not m])
        assert "<|user|>" in text and text.count("<|assistant|>") == text.count("<|tool|>") + 1
        assert "<|end|><|assistant|>" in text
        spoken = tokenizer.decode([t for t, m in zip(trajectory.token_ids, trajectory.mask, strict=True) if m])
        assert spoken.endswith("<|end|>") and "<|user|>" not in spoken


def test_an_epoch_shows_every_demonstration_once_and_flaws_come_at_their_rate(arena) -> None:
    demonstrations = Demonstrations([(arena, 1.0)], 200, 0.5, 0, 300)
    epoch = [t for step in range(10) for t in demonstrations.batch(step, 20)]
    assert len({t.token_ids for t in epoch}) >= 195
    env, right = arena.env, 0
    for index in range(400):
        task = env.source.task(index)
        env.reset(options={"task": task})
        for action in env.demonstrate(task, np.random.default_rng(index), 0.5):
            _, reward, terminated, *_ = env.step(action)
        assert terminated
        right += reward
    assert 150 < right < 250


def test_demonstrations_of_one_task_come_together(arena) -> None:
    batch = Demonstrations([(arena, 1.0)], 64, 0.5, 0, 300, per_task=4).batch(0, 16)
    prompts = [t.token_ids[: t.mask.index(True)] for t in batch]
    assert [prompts.count(prompt) for prompt in prompts] == [4] * 16


def test_supervised_loss_is_the_mean_over_assistant_tokens_and_falls(arena) -> None:
    model, _ = create_tiny_model(SHAPE, 0)
    demonstrations = Demonstrations([(arena, 1.0)], 32, 0.0, 0, 300)
    batch = demonstrations.batch(0, 4)
    losses = []
    for trajectory in batch:
        logprobs = torch.log_softmax(model(torch.tensor([trajectory.token_ids])).logits[0, :-1].detach(), -1)
        picked = logprobs.gather(1, torch.tensor(trajectory.token_ids[1:])[:, None])[:, 0]
        losses.append(-picked[torch.tensor(trajectory.mask[1:])])
    assert sft_step(model, batch, 10_000) == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)
    model.zero_grad()
    config = SFTConfig(steps=40, batch_size=8, optimizer=OptimizerConfig(lr=3e-3))
    notes = Notes()
    optimizer = build_optimizer(model, config.optimizer)
    done = train_sft(model, optimizer, demonstrations, config, recorder=notes, show=notes, after_step=lambda step: None)
    assert done == 40
    assert notes.rows[-1]["loss"] < 0.8 * notes.rows[0]["loss"]


def test_task_streams_continue_where_they_stood(arena) -> None:
    def stream() -> TaskStream:
        return TaskStream([(arena, 1.0)], 5, 2, Sampling())

    whole, first, second = stream(), stream(), stream()
    expected = whole.groups(6)
    begun = first.groups(2)
    second.restore(first.state())
    assert begun + second.groups(4) == expected


def test_a_finite_source_is_read_whole_before_anything_repeats() -> None:
    class Listed(Vowels):
        def __init__(self) -> None:
            TextEnv.__init__(self, ListSource([Task(str(i), "say", None) for i in range(5)]))

    arena = Arena.build("listed", Listed, create_tiny_model(SHAPE, 0)[1])
    stream = TaskStream([(arena, 1.0)], 0, 1, Sampling())
    ids = [request.task.id for request in stream.groups(10)]
    assert sorted(ids[:5]) == sorted(ids[5:]) == list("01234")


def test_shipped_recipes_name_presets_that_exist() -> None:
    from ludus.chain import Chain, load_training

    for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml"):
        found = load_training(path)
        policy = (found.stages[-1].recipe if isinstance(found, Chain) else found).policy
        assert policy is not None
        assert get_algorithm(policy.algorithm, **policy.options).name == policy.algorithm


def test_a_control_with_shuffled_rewards_pays_no_step_by_itself() -> None:
    """Under rewards to go, a step's own reward would reach the tokens before it whatever was shuffled."""
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="reinforce++", steps=1, shuffle_rewards=True)) as run:
        seen: list[Any] = []
        estimator = run.trainer.algorithm.estimator

        def watch(experience: Any, state: Any) -> Any:
            seen.append(experience)
            return estimator(experience, state)

        run.trainer.algorithm = replace(run.trainer.algorithm, estimator=watch)
        run.train()
    (experience,) = seen
    own = [episode.reward for episode in experience.episodes]
    assert not experience.paid_by_step
    assert sorted(experience.rewards_E) == sorted(own) and list(experience.rewards_E) != own


def test_minibatches_take_several_steps_and_all_but_the_first_are_off_policy() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="rloo", steps=2, groups=8, minibatches=4)) as run:
        run.train()
        (state, *_) = run.trainer.optimizer.state.values()
        assert int(state["step"]) == 2 * 4
    with ended(Run(("vowels", one_turn(), 1.0), options={"kl_coef": 0.0}, steps=1, groups=8, minibatches=4)) as run:
        (row,) = run.train()
        assert row["ratio"] != 1.0 and abs(row["ratio"] - 1) < 0.5
    with ended(Run(("vowels", one_turn(), 1.0), options={"kl_coef": 0.0}, steps=1, groups=8)) as run:
        (row,) = run.train()
        assert row["ratio"] == 1.0


@pytest.mark.parametrize("sampling", [{}, {"top_p": 0.8}, {"temperature": 0.6, "top_k": 9}, {"temperature": 1.5}])
def test_the_trainer_s_log_probabilities_are_those_of_the_sampler(sampling: dict[str, float]) -> None:
    with ended(Run(("vowels", one_turn(), 1.0), steps=2)) as run:
        run.trainer.stream.sampling = replace(run.trainer.stream.sampling, **sampling)  # type: ignore[arg-type]
        rows = run.train()
        kept = [t.kept for episodes, _ in run.kept for e in episodes for t in e.trajectories]
    assert all(abs(row["kl_sampler"]) < 1e-5 for row in rows)
    assert all((found is not None) == ("top_p" in sampling or "top_k" in sampling) for found in kept)


def test_the_same_seed_trains_the_same_weights() -> None:
    found = []
    for _ in range(2):
        with ended(Run(("vowels", one_turn(), 1.0), ("more", one_turn(), 2.0), minibatches=2)) as run:
            run.train()
            found.append(run.model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_kl_in_the_loss_pulls_towards_the_reference_and_is_reported() -> None:
    """Without any reward to gain, a policy that has drifted goes back; without the term it stays where it is."""
    moved = []
    for kl_coef in (0.0, 5.0):
        with ended(Run(("vowels", one_turn("wrong"), 1.0), options={"kl_coef": kl_coef}, steps=8)) as run:
            rows = run.train()
            moved.append([row.get("kl_reference") for row in rows])
    assert moved[0] == [None] * 8
    assert moved[1][-1] < 0.7 * moved[1][0], moved[1]


def test_kl_in_the_reward_costs_what_it_measures() -> None:
    """RLOO: the advantages are those of rewards less kl_coef times the summed log-ratio to the reference."""
    from ludus.trainers.algorithms.advantages import leave_one_out
    from ludus.trainers.policy_step import frozen_logprobs

    with ended(Run(("vowels", one_turn(), 1.0), algorithm="rloo", options={"kl_coef": 0.5}, steps=1)) as run:
        run.train()
        ((episodes, advantages),) = run.kept
        rows = [Row(e.trajectories[0], np.zeros(len(e.trajectories[0].mask)), 0.0) for e in episodes]
        references = frozen_logprobs(run.trainer.reference, rows, 5000)
    penalties = [
        0.5 * sum(p - r for p, r, m in zip(row.trajectory.logprobs, reference, row.trajectory.mask, strict=True) if m)
        for row, reference in zip(rows, references, strict=True)
    ]
    assert max(map(abs, penalties)) > 0.1
    rewards = np.array([e.reward for e in episodes]) - np.array(penalties)
    expected = leave_one_out(rewards, np.array([hash(e.group) for e in episodes]))
    found = [parts[0][np.array(e.trajectories[0].mask)][0] for e, parts in zip(episodes, advantages, strict=True)]
    assert found == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_policy_learns_what_is_rewarded_and_shuffled_rewards_teach_nothing() -> None:
    gains = {}
    for shuffle in (False, True):
        options = {"kl_coef": 0.0}
        with ended(
            Run(("vowels", one_turn(), 1.0), options=options, steps=25, groups=8, shuffle_rewards=shuffle)
        ) as run:
            rewards = [row["reward"] for row in run.train()]
            gains[shuffle] = np.mean(rewards[-5:]) - np.mean(rewards[:5])
    assert gains[False] > 0.25
    assert gains[True] < 0.5 * gains[False]


def test_metrics_tell_each_environment_and_how_episodes_ended() -> None:
    with ended(Run(("a", one_turn(), 1.0), ("b", one_turn("flaky"), 1.0), groups=12, steps=2)) as run:
        rows = run.train()
        judged = [episodes for episodes, _ in run.kept]
    for row, episodes in zip(rows, judged, strict=True):
        for name in ("a", "b"):
            mean = np.mean([e.reward for e in episodes if e.env == name])
            assert row[f"reward/{name}"] == pytest.approx(mean)
        assert row["reward"] == pytest.approx(np.mean([e.reward for e in episodes]))
        assert row["episodes"] == 48
        assert row["errors"] == 48 - len(episodes) > 0
        assert 0 < row["truncated"] < 1
        spread = {e.group: {o.reward for o in episodes if o.group == e.group} for e in episodes}
        assert row["groups_without_spread"] == pytest.approx(np.mean([len(v) == 1 for v in spread.values()]))


def test_the_overlong_penalty_by_hand() -> None:
    """max_tokens 8, buffer 4: up to 4 tokens cost nothing, 5 cost 1/4, 6 cost 1/2, 8 cost 1."""
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="dapo", options={"overlong_buffer": 4}, groups=8)) as run:
        episodes = run.trainer.rollout.run(run.trainer.stream.groups(8))
        found = {max(s.end - s.start for s in e.trajectories[0].steps): run.trainer._overlong(e) for e in episodes}
    assert len(found) > 3
    assert found == {n: {5: -0.25, 6: -0.5, 7: -0.75, 8: -1.0}.get(n, 0.0) for n in found}


def test_the_loss_touches_assistant_tokens_alone(arena) -> None:
    """The gradient with respect to the logits is zero wherever the next token was not the assistant's."""
    model, _ = create_tiny_model(SHAPE, 0)
    (trajectory,) = Demonstrations([(arena, 1.0)], 8, 0.0, 0, 300).batch(0, 1)
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        expected = torch.zeros(len(trajectory.mask), dtype=torch.bool)
        expected[:-1] = torch.tensor(trajectory.mask[1:])
    embeddings = model.get_input_embeddings()
    handle = embeddings.register_forward_hook(
        lambda module, inputs, output: seen.append(output) or output.retain_grad()
    )
    sft_step(model, [trajectory], 10_000)
    handle.remove()
    last = int(expected.nonzero().max())
    gradient = seen[0].grad[0].abs().sum(-1)
    assert (gradient[: last + 1] > 0).all(), "all that comes before an assistant's token has its part in it"
    assert (gradient[last + 1 :] == 0).all(), "what comes after the last has none"
    model.zero_grad()
    spoiled = replace(
        trajectory, mask=tuple(m and i != trajectory.mask.index(True) for i, m in enumerate(trajectory.mask))
    )
    whole, less = sft_step(model, [trajectory], 10_000), sft_step(model, [spoiled], 10_000)
    assert whole != less


def test_the_loss_is_over_the_whole_text_where_that_is_asked_for(arena) -> None:
    model, _ = create_tiny_model(SHAPE, 0)
    batch = Demonstrations([(arena, 1.0)], 8, 0.0, 0, 300, per_task=2).batch(0, 4)
    losses = []
    for trajectory in batch:
        tokens = torch.tensor([trajectory.token_ids])
        logits = model(tokens).logits[0, :-1].detach()
        losses.append(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none"))
    found = sft_step(model, batch, 10_000, train_on_prompt=True)
    assert found == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)
    assert found != pytest.approx(sft_step(model, batch, 10_000), rel=1e-2)


def test_the_supervised_gradient_does_not_depend_on_how_the_batch_is_cut(arena) -> None:
    model, _ = create_tiny_model(SHAPE, 0)
    batch = Demonstrations([(arena, 1.0)], 64, 0.0, 0, 300, per_task=3).batch(0, 9)
    gradients = []
    for tokens, order in ((1, 1), (300, -1), (100_000, 1)):
        model.zero_grad()
        sft_step(model, batch[::order], tokens)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert gradients[0].norm() > 0
    for other in gradients[1:]:
        assert (other - gradients[0]).norm() < 1e-5 * gradients[0].norm()


def test_demonstrations_of_several_environments_come_by_weight() -> None:
    tokenizer = create_tiny_model(SHAPE, 0)[1]
    arenas = [
        (Arena.build("one", lambda: WordMath(system_prompt="", levels=[1]), tokenizer), 3.0),
        (Arena.build("two", lambda: WordMath(system_prompt="second", levels=[1]), tokenizer), 1.0),
    ]
    batch = Demonstrations(arenas, 200, 0.0, 0, 300).batch(0, 200)
    second = sum("second" in tokenizer.decode(t.token_ids) for t in batch)
    assert 25 <= second <= 75


def test_demonstrations_are_cut_at_the_engine_s_length(arena) -> None:
    found = Demonstrations([(arena, 1.0)], 8, 0.0, 0, 90).batch(0, 8)
    assert {len(t.token_ids) for t in found} == {90}
    assert {len(t.mask) for t in found} == {90}


def test_minibatches_do_not_divide_an_episode() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), minibatches=2, epochs=2)) as run:
        rows = [replace(Row(trajectory_of(3), np.zeros(4), 1.0), episode=number // 3) for number in range(12)]
        parts = [set(part.tolist()) for part in run.trainer._parts_of(0, rows)]
    assert len(parts) == 4 and parts[0] | parts[1] == parts[2] | parts[3] == set(range(12))
    assert all({i // 3 for i in part} & {i // 3 for i in set(range(12)) - part} == set() for part in parts)


def trajectory_of(length: int) -> Trajectory:
    return Trajectory((9,) * (length + 1), (False, *[True] * length), (0.0,) * (length + 1), (0,) * (length + 1))


def test_groups_of_one_have_no_spread_to_lack() -> None:
    with ended(Run(("vowels", one_turn(), 1.0), algorithm="reinforce", group_size=1, steps=1)) as run:
        (row,) = run.train()
    assert "groups_without_spread" not in row
