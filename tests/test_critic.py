"""The critic: values of the states before tokens, its loss by hand, and a gradient that no cutting changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_policy_gradient import SHAPE, make_episodes

from ludus.agents.model import create_tiny_model
from ludus.agents.trajectory import Step, Trajectory
from ludus.trainers.algorithms import Experience, get_algorithm
from ludus.trainers.algorithms.advantages import gae_returns
from ludus.trainers.batch import Row
from ludus.trainers.critic import Critic, accumulate_values, token_values, value_loss


@pytest.fixture(scope="module")
def critic() -> Critic:
    found = Critic(create_tiny_model(SHAPE.model_copy(update={"initializer_range": 0.1}), 0)[0])
    torch.nn.init.normal_(found.head.weight, generator=torch.Generator().manual_seed(0))
    return found


def rows(seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    trajectories = [t for episode in make_episodes(seed) for t in episode.trajectories]
    return [
        Row(t, np.zeros(len(t.mask)), 1.0, values=rng.normal(size=len(t.mask)), returns=rng.normal(size=len(t.mask)))
        for t in trajectories
    ]


def test_a_new_critic_says_nothing() -> None:
    fresh = Critic(create_tiny_model(SHAPE, 0)[0])
    assert all((values == 0).all() for values in token_values(fresh, rows(), 1000))


def test_the_value_of_a_token_is_that_of_the_state_before_it_and_the_last_that_of_the_end(critic: Critic) -> None:
    for row, found in zip(rows(), token_values(critic, rows(), 200), strict=True):
        with torch.no_grad():
            hidden = critic.base_model(torch.tensor([row.trajectory.token_ids])).last_hidden_state[0]
            direct = critic.head(hidden)[:, 0].numpy()
        sampled = np.flatnonzero(row.trajectory.mask)
        assert found[sampled] == pytest.approx(direct[sampled - 1], abs=1e-5)
        assert found[-1] == pytest.approx(direct[-1], abs=1e-5)
        assert (np.delete(found[:-1], sampled) == 0).all()


def test_what_is_observed_has_values_where_steps_run_over_it(critic: Critic) -> None:
    for row, found in zip(rows(), token_values(critic, rows(), 200, observed=True), strict=True):
        with torch.no_grad():
            hidden = critic.base_model(torch.tensor([row.trajectory.token_ids])).last_hidden_state[0]
            direct = critic.head(hidden)[:, 0].numpy()
        first = row.trajectory.mask.index(True)
        assert found[first:] == pytest.approx(direct[first - 1 :], abs=1e-5)
        assert (found[:first] == 0).all()


def test_gae_may_take_every_observed_token_for_a_step() -> None:
    """Sampled, observed, sampled, with the values 0.2, 0.4 and 0.6; paid 1 at the end."""
    (episode,) = make_episodes(0, groups=1, size=1)
    parts = (7, 8, 9, 7), (False, True, False, True), (0.0, -1.0, 0.0, -1.0), (0,) * 4
    trajectory = Trajectory(*parts, steps=(Step(1, 2, 0.0), Step(3, 4, 1.0)))
    whole = replace(episode, trajectories=(trajectory,), terminated=True, reward=1.0)
    given = Experience([whole], np.array([1.0]), np.zeros(1, int), values_E=[[np.array([0.0, 0.2, 0.4, 0.6, 0.8])]])
    last = 1.0 - 0.6
    options = {"gamma": 0.9, "lam": 0.5, "whiten": False}
    across, _ = get_algorithm("ppo", **options, like="verl").estimator(given, {})
    assert across[0][0] == pytest.approx([0.0, 0.9 * 0.6 - 0.2 + 0.45 * last, 0.0, last])
    through, _ = get_algorithm("ppo", **options, like="trl").estimator(given, {})
    observed = 0.9 * 0.6 - 0.4 + 0.45 * last
    assert through[0][0] == pytest.approx([0.0, 0.9 * 0.4 - 0.2 + 0.45 * observed, 0.0, last])
    target = get_algorithm("ppo", **options, across=False).value_target
    assert target is not None
    assert target(given)[0][0] == pytest.approx([0.0, 0.9 * 0.4 + 0.45 * observed, 0.0, last + 0.6])


def test_what_stands_before_the_first_sampled_token_of_each_trajectory_is_no_step() -> None:
    """An episode in two segments, each of a prompt of two tokens and a sampled one; paid 1 at the end."""
    (episode,) = make_episodes(0, groups=1, size=1)
    parts = (7, 8, 9), (False, False, True), (0.0, 0.0, -1.0), (0,) * 3
    first, second = Trajectory(*parts, steps=(Step(2, 3, 0.0),)), Trajectory(*parts, steps=(Step(2, 3, 1.0),))
    whole = replace(episode, trajectories=(first, second), terminated=True, reward=1.0)
    values = [[np.array([0.0, 0.0, 0.2, 0.3]), np.array([0.0, 0.0, 0.6, 0.8])]]
    given = Experience([whole], np.array([1.0]), np.zeros(1, int), values_E=values)
    last = 1.0 - 0.6
    for across in (True, False):
        found, _ = get_algorithm("ppo", gamma=0.9, lam=0.5, whiten=False, across=across).estimator(given, {})
        assert found[0][0] == pytest.approx([0.0, 0.0, 0.9 * 0.6 - 0.2 + 0.45 * last])
        assert found[0][1] == pytest.approx([0.0, 0.0, last])
    empty = replace(given, episodes=[replace(whole, trajectories=())], values_E=[[]])
    assert gae_returns(empty, across=False) == [[]]


def test_the_value_loss_by_hand() -> None:
    """Said 1.0 before and 1.5 now, and 2 would have been right: the bound of 0.2 makes it 1.2, which is further off."""
    said, right, before = torch.tensor([1.5, 1.1]), torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    assert value_loss(said, right, before, 0.2).tolist() == pytest.approx([0.5 * 0.64, 0.5 * 1.21])
    assert value_loss(said, right, before, None).tolist() == pytest.approx([0.5 * 0.25, 0.5 * 1.21])


def test_the_gradient_does_not_depend_on_how_the_step_is_cut(critic: Critic) -> None:
    def gradient(tokens: int, given: list[Row]) -> torch.Tensor:
        critic.zero_grad()
        accumulate_values(critic, given, tokens, 0.2)
        return torch.cat([p.grad.flatten() for p in critic.parameters() if p.grad is not None])

    whole = gradient(100_000, rows(3))
    assert whole.abs().max() > 1e-3
    for tokens in (1, 60, 200):
        assert torch.allclose(gradient(tokens, rows(3)[::-1]), whole, atol=2e-5 * float(whole.abs().max()))


def test_what_ended_is_paid_nothing_more_and_what_was_cut_is_worth_what_the_critic_says_of_its_end() -> None:
    """One episode: two sampled tokens, an observed one, one sampled; rewards 0.5 at the second and 1 at the last."""
    (episode,) = make_episodes(0, groups=1, size=1)
    (trajectory,) = episode.trajectories
    trajectory = replace(
        trajectory,
        token_ids=(9, 8, 7, 6, 5),
        mask=(False, True, True, False, True),
        logprobs=(0.0,) * 5,
        versions=(0,) * 5,
        steps=(Step(1, 3, 0.5), Step(4, 5, 1.0)),
    )
    values = [[np.array([0.0, 0.2, 0.4, 0.0, 0.6, 0.8])]]
    for terminated, after in ((True, 0.0), (False, 0.8)):
        whole = replace(episode, trajectories=(trajectory,), terminated=terminated, reward=1.5)
        given = Experience([whole], np.array([1.5]), np.zeros(1, int), values_E=values)
        advantages, _ = get_algorithm("ppo", gamma=0.9, lam=0.5, whiten=False).estimator(given, {})
        last = 1.0 + 0.9 * after - 0.6
        second = 0.5 + 0.9 * 0.6 - 0.4 + 0.45 * last
        first = 0.9 * 0.4 - 0.2 + 0.45 * second
        assert advantages[0][0] == pytest.approx([0.0, first, second, 0.0, last])
        (returns,) = gae_returns(given, 0.9, 0.5)
        assert returns[0] == pytest.approx([0.0, first + 0.2, second + 0.4, 0.0, last + 0.6])
