"""Potential-based shaping: it adds up to minus the first potential however an episode goes and ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bigram import drifting_model
from hypothesis import example, given
from hypothesis import strategies as st
from twins import byte_tokenizer

from ludus.agents.engine import Sampling
from ludus.agents.model import character_tokenizer
from ludus.agents.rollout import Arena, EpisodeRequest, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.trajectory import Episode
from ludus.envs import EnvError, ListSource, Task, TextEnv
from ludus.trainers.policy import _with_spread
from ludus.verifiers.shaping import shaping_term
from ludus.verifiers.verdict import Verdict

TOKENIZER = character_tokenizer()
TASK = Task("t", "Say it", "it")


class Plain(TextEnv):
    """Asks again `rounds` times, then judges: right is an answer with an even number of characters."""

    def __init__(self, rounds: int = 2, gamma: float = 1.0, **options: Any) -> None:
        super().__init__(ListSource([TASK]), **options)
        self.rounds, self.shaping_gamma = rounds, gamma

    def respond(self, task: Task, action: str) -> str | None:
        return f"{len(action)} more" if self.turn <= self.rounds else None

    def verify(self, task: Task, response: str) -> Verdict:
        return Verdict.correct("even") if len(response) % 2 == 0 else Verdict.wrong("odd")


class Shaped(Plain):
    """Its potential at each turn is the one of a list."""

    def __init__(self, potentials: list[float], **options: Any) -> None:
        super().__init__(rounds=len(potentials) - 1, **options)
        self.potentials = potentials

    def potential(self, task: Task) -> float | None:
        assert self._running, "the end of an episode has the potential 0 and is not asked"
        return self.potentials[self.turn]


def steps(env: TextEnv) -> list[tuple[float, dict[str, float]]]:
    """(reward, named rewards) of each step of an episode."""
    env.reset()
    found, ended = [], False
    while not ended:
        _, reward, terminated, truncated, info = env.step("ab")
        found.append((reward, info["rewards"]))
        ended = terminated or truncated
    return found


def test_the_term_is_the_discounted_gain_of_potential() -> None:
    assert shaping_term(0.5, 0.75) == 0.25
    assert shaping_term(0.5, 0.75, 0.8) == pytest.approx(0.1)
    assert shaping_term(0.5, None, 0.8) == -0.5


def test_each_step_earns_its_term_under_a_name_of_its_own() -> None:
    assert steps(Shaped([0.25, 0.5, 0.125])) == [
        (0.25, {"shaping": 0.25}),
        (-0.375, {"shaping": -0.375}),
        (1 - 0.125, {"correct": 1.0, "shaping": -0.125}),
    ]


def test_by_hand_with_a_discount() -> None:
    terms = [named["shaping"] for _, named in steps(Shaped([0.5, 1.0, 0.25], gamma=0.5))]
    assert terms == [0.5 * 1.0 - 0.5, 0.5 * 0.25 - 1.0, -0.25]


potentials = st.lists(st.integers(-1024, 1024).map(lambda n: n / 1024), min_size=1, max_size=6)


@given(potentials, st.sampled_from([1.0, 0.5, 0.25, 0.0]))
@example([0.5], 1.0)
def test_the_discounted_sum_of_the_terms_is_minus_the_first_potential(values: list[float], gamma: float) -> None:
    terms = [named["shaping"] for _, named in steps(Shaped(values, gamma=gamma))]
    assert sum(gamma**t * term for t, term in enumerate(terms)) == -values[0]


@given(potentials, st.integers(1, 6), st.sampled_from([1.0, 0.5]))
def test_an_episode_that_uses_up_its_turns_gives_its_potential_back(
    values: list[float], max_turns: int, gamma: float
) -> None:
    found = steps(Shaped(values, gamma=gamma, max_turns=max_turns))
    assert len(found) == min(max_turns, len(values))
    assert sum(gamma**t * named["shaping"] for t, (_, named) in enumerate(found)) == -values[0]


def test_without_a_potential_nothing_changes() -> None:
    found = steps(Plain(rounds=2))
    assert found == [(0.0, {}), (0.0, {}), (1.0, {"correct": 1.0})]
    assert Plain().cut(acted=True) == 0.0


@pytest.mark.parametrize(
    ("values", "gamma", "sentence"),
    [
        ([float("nan")], 1.0, r"Shaped\.potential must return a finite number or None, not nan"),
        (["high"], 1.0, r"Shaped\.potential must return a finite number or None, not 'high'"),
        ([0.0], 1.5, r"Shaped\.shaping_gamma = 1\.5 must lie between 0 and 1"),
        ([0.5, None], 1.0, r"Shaped\.potential gave 0\.5 and then None; return a number each time"),
    ],
)
def test_a_potential_that_is_none_is_told(values: Any, gamma: float, sentence: str) -> None:
    with pytest.raises(EnvError, match=sentence):
        steps(Shaped(values, gamma=gamma))


# In rollouts, where the engine may end an episode, too


def play(make: Any, tokenizer: Any = TOKENIZER, model: Any = None, count: int = 24, **options: Any) -> list[Episode]:
    sampling = Sampling(max_tokens=options.pop("max_tokens", 12))
    length = options.pop("max_length", 400)
    arena = Arena.build("shaped", make, tokenizer, **options)
    requests = [EpisodeRequest(f"e{i}", "shaped", TASK, "g", i, sampling) for i in range(count)]
    network = model or drifting_model(tokenizer, end=0.2)
    with Rollout(TorchEngine(network, tokenizer, slots=8, max_length=length), {"shaped": arena}) as rollout:
        return rollout.run(requests)


VALUES = [0.375, 0.5, 0.875, 0.25]


def all_steps(episode: Episode) -> list[Any]:
    return [step for trajectory in episode.trajectories for step in trajectory.steps]


@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize(("limit", "reason"), [({"max_tokens": 6}, "length"), ({"max_length": 42}, "context")])
def test_an_episode_that_the_engine_cuts_gives_its_potential_back(
    gamma: float, limit: dict[str, int], reason: str
) -> None:
    episodes = play(lambda: Shaped(VALUES, gamma=gamma), **limit)
    cut = [episode for episode in episodes if episode.stop_reason == reason]
    assert len({len(all_steps(episode)) for episode in cut}) > 1, "cut in several turns"
    for episode in episodes:
        found = all_steps(episode)
        assert sum(gamma**t * step.rewards["shaping"] for t, step in enumerate(found)) == -VALUES[0]
        paid = float(episode.verdict.reward) if episode.verdict else 0.0
        assert episode.reward == sum(step.reward for step in found) == paid + episode.rewards["shaping"]


def test_where_the_template_rewrites_history_the_term_finds_its_step() -> None:
    template = (
        "{% for m in messages %}{% if not loop.last and m.role == 'assistant' %}<|im_start|>…<|im_end|>"
        "{% else %}<|im_start|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    tokenizer = byte_tokenizer(template)
    make = lambda: Shaped(VALUES)  # noqa: E731
    limits = {"max_length": 28, "max_tokens": 9, "on_rewrite": "segment"}
    episodes = play(make, tokenizer, drifting_model(tokenizer, end=0.4), **limits)
    assert any(e.stop_reason == "context" and len(e.trajectories) > 1 for e in episodes)
    for episode in episodes:
        assert sum(step.rewards["shaping"] for step in all_steps(episode)) == -VALUES[0]


def test_without_a_potential_episodes_are_the_same_bit_for_bit() -> None:
    class Zero(Plain):
        def potential(self, task: Task) -> float | None:
            return 0.0

    plain, zero = play(Plain), play(Zero)
    assert [e.reward for e in plain] == [e.reward for e in zero]
    assert all("shaping" not in step.rewards for e in plain for step in all_steps(e))

    def tokens(episodes: list[Episode]) -> list[Any]:
        return [[replace(t, steps=()) for t in episode.trajectories] for episode in episodes]

    assert tokens(plain) == tokens(zero)


def test_terms_that_cancel_but_for_rounding_give_a_group_no_spread() -> None:
    class Wrong(Shaped):
        def verify(self, task: Task, response: str) -> Verdict:
            return Verdict.wrong("always")

    episodes = play(lambda: Wrong([0.1, 0.7, 0.3]))
    assert len({episode.reward for episode in episodes}) > 1, "0.6 - 0.4 - 0.3 is not -0.1 to the last bit"
    assert _with_spread(episodes) == []
    assert _with_spread([*episodes, replace(episodes[0], reward=0.9)]) != []
