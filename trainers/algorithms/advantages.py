"""Advantage estimators. Each has a core over episode rewards that three numbers can test, and spreads it over tokens.

Baselines count episodes. Rewards have any unit; advantages have the same one, or none where they are normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ...agents.trajectory import Episode
from .record import Estimator, Experience, State

Deviation = Literal["bessel", "population", "none"]
Alone = Literal["zero", "reward"]
Normalise = Literal["joint", "per_class", "none"]
LEAST_ENTROPY = 1e-6
"""In nats; a token that was certain is weighed as if it had this."""


def group_norm(
    rewards_E: np.ndarray,
    groups_E: np.ndarray,
    std: Deviation = "bessel",
    eps: float = 1e-6,
    alone: Alone = "zero",
) -> np.ndarray:
    """`(R - mean) / (std + eps)` within each group; 0 in a group without spread.

    alone: what a group of one gets: 0, or `R / (1 + eps)`, as where its mean is taken for 0 and its deviation for 1.
    Source: GRPO, DeepSeekMath (arXiv:2402.03300), section 4.1.2. verl has eps 1e-6 and TRL 1e-4, both with Bessel's
    correction; verl pays a group of one its reward.
    """
    advantages = np.zeros(len(rewards_E))
    for rows in _groups(groups_E):
        rewards = rewards_E[rows]
        if len(rows) == 1 and alone == "reward":
            advantages[rows] = rewards / (1 + eps)
        if np.ptp(rewards) == 0:
            continue
        scale = 1.0 if std == "none" else rewards.std(ddof=1 if std == "bessel" else 0) + eps
        advantages[rows] = (rewards - rewards.mean()) / scale
    return advantages


def group_center(rewards_E: np.ndarray, groups_E: np.ndarray) -> np.ndarray:
    """`R - mean` within each group. Source: Dr. GRPO (arXiv:2503.20783), section 3.2."""
    return group_norm(rewards_E, groups_E, std="none")


def leave_one_out(rewards_E: np.ndarray, groups_E: np.ndarray) -> np.ndarray:
    """`R_i - mean of the others` in each group; 0 in a group of one. Source: RLOO (arXiv:2402.14740), equation 8."""
    advantages = np.zeros(len(rewards_E))
    for rows in _groups(groups_E):
        rewards = rewards_E[rows]
        if len(rows) > 1:
            advantages[rows] = (rewards - rewards.mean()) * len(rows) / (len(rows) - 1)
    return advantages


def subtract_baseline(rewards_E: np.ndarray, baseline: float) -> np.ndarray:
    """`R - b`. Source: REINFORCE (Williams, 1992)."""
    return rewards_E - baseline


def to_go(rewards_n: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    """At each of n sampled tokens, the discounted sum of the rewards from it on. Source: REINFORCE (Williams, 1992)."""
    if gamma == 1:
        return np.cumsum(rewards_n[::-1])[::-1]
    sums = np.zeros(len(rewards_n))
    ahead = 0.0
    for t in reversed(range(len(rewards_n))):
        sums[t] = ahead = rewards_n[t] + gamma * ahead
    return sums


def gae(rewards_n: np.ndarray, values_n: np.ndarray, after: float, gamma: float = 1.0, lam: float = 0.95) -> np.ndarray:
    """Generalised advantages of n sampled tokens: `delta_t = r_t + gamma V_{t+1} - V_t`, summed with `gamma lam`.

    A step runs from one sampled token to the next, over whatever was observed between them. after: the value where the
    sampled tokens end: 0 where the episode terminated, that of its end where it was truncated. Source:
    arXiv:1506.02438, equation 16; across observations as verl does it.
    """
    deltas = rewards_n + gamma * np.append(values_n[1:], after) - values_n
    return to_go(deltas, gamma * lam)


def whiten(values_n: np.ndarray, eps: float = 1e-8) -> np.ndarray:
    """`(x - mean) / sqrt(var + eps)` with Bessel's correction; one value, or values without spread, become 0."""
    if len(values_n) < 2 or np.ptp(values_n) == 0:
        return np.zeros(len(values_n))
    return (values_n - values_n.mean()) / np.sqrt(values_n.var(ddof=1) + eps)


def score_rewards(scores_k: np.ndarray, before: float = 0.0) -> np.ndarray:
    """`s_t - s_{t-1}` for k steps: what each has added to the score of a process-reward model.

    before: the score of the prompt, where that has one. Source: differences of a potential, Ng et al. (1999).
    """
    return np.diff(scores_k, prepend=before)


def process(rewards: Sequence[np.ndarray], std: Deviation = "bessel", eps: float = 1e-6) -> list[np.ndarray]:
    """The advantages of the k_i steps of each of the G episodes of one group, [G][k_i], from the rewards of its steps.

    Rewards to go, normalised over all steps of the group together; 0 where these have no spread. Source: process
    supervision, DeepSeekMath (arXiv:2402.03300), section 4.1.3, with rewards summed before they are normalised.
    """
    ahead = [to_go(own) for own in rewards]
    whole = np.concatenate(ahead) if ahead else np.zeros(0)
    whole = group_norm(whole, np.zeros(len(whole)), std, eps)
    return np.split(whole, np.cumsum([len(own) for own in ahead])[:-1])


def entropy_weighted(
    rewards_G: np.ndarray,
    entropies: Sequence[np.ndarray],
    share: float = 1.0,
    bonus: float = 0.1,
    normalise: Normalise = "joint",
) -> list[np.ndarray]:
    """GTPO: the advantages of the sampled tokens of each of the G episodes of one group, [G][n_i].

    A success (R > 0) is paid `share R + bonus d_t H_it / sum_k H_kt` at its token t, a failure `-share - bonus h_t
    (1 / H_it) / sum_k (1 / H_kt)`, with the sums over the d_t successes, or h_t failures, still running at t.
    entropies: [G][n_i] in nats. normalise: to mean 0 and deviation 1 over all tokens of the group; or over those of
    each class by itself, which gives each mean 0 and so erases the outcome; or not at all. What has no spread keeps its
    value; but a group whose rewards have none gets 0 where it is normalised as a whole, for else the bonus, which is
    all that differs there, would be raised to the size of the outcome. Source: GTPO (arXiv:2508.04349).
    """
    if normalise == "joint" and len(rewards_G) and np.ptp(rewards_G) == 0:
        return [np.zeros(len(entropy)) for entropy in entropies]
    entropies = [np.maximum(entropy, LEAST_ENTROPY) for entropy in entropies]
    paid = [np.zeros(len(entropy)) for entropy in entropies]
    right = rewards_G > 0
    for members in (np.flatnonzero(right), np.flatnonzero(~right)):
        for t in range(max((len(entropies[i]) for i in members), default=0)):
            running = [i for i in members if len(entropies[i]) > t]
            weights = np.array([entropies[i][t] if right[i] else 1 / entropies[i][t] for i in running])
            extra = bonus * len(running) * weights / weights.sum()
            for i, more in zip(running, extra, strict=True):
                paid[i][t] = share * rewards_G[i] + more if right[i] else -share - more
    return _normalised(paid, right, normalise)


def entropy_weighted_sequences(
    rewards_G: np.ndarray,
    entropies_G: np.ndarray,
    share: float = 1.0,
    bonus: float = 0.1,
    normalise: Normalise = "joint",
) -> np.ndarray:
    """GRPO-S: `entropy_weighted` with one number for each episode, from the mean entropy of its tokens, [G].

    Source: arXiv:2508.04349.
    """
    found = entropy_weighted(
        rewards_G, [entropies_G[i : i + 1] for i in range(len(rewards_G))], share, bonus, normalise
    )
    return np.concatenate(found) if found else np.zeros(0)


def distill(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
    """`log T - log p` of each sampled token: how much likelier it was for the teacher. Rewards play no part.

    Its expectation is the negative reverse divergence from the teacher, in nats. Source: on-policy distillation,
    MiniLLM (arXiv:2306.08543), section 2.2, at each token by itself.
    """
    assert experience.teacher_E is not None
    advantages = [
        [np.where(t.mask, teacher - p, 0.0) for t, teacher, p in zip(e.trajectories, theirs, own, strict=True)]
        for e, theirs, own in zip(experience.episodes, experience.teacher_E, experience.logprobs(), strict=True)
    ]
    return advantages, state


def length_reward(lengths_E: np.ndarray, right_E: np.ndarray, groups_E: np.ndarray) -> np.ndarray:
    """`0.5 - (n - n_min) / (n_max - n_min)` within each group, for wrong answers never above 0; 0 where all n are one.

    lengths_E: sampled tokens of each episode. right_E: whether its answer is. Source: Kimi k1.5 (arXiv:2501.12599),
    section 2.3.3.
    """
    rewards = np.zeros(len(lengths_E))
    for rows in _groups(groups_E):
        lengths = lengths_E[rows].astype(float)
        if np.ptp(lengths) > 0:
            rewards[rows] = 0.5 - (lengths - lengths.min()) / np.ptp(lengths)
    return np.where(right_E, rewards, np.minimum(rewards, 0.0))


def _normalised(values: list[np.ndarray], right: np.ndarray, normalise: Normalise) -> list[np.ndarray]:
    everyone = np.arange(len(values))
    classes = {"joint": [everyone], "per_class": [np.flatnonzero(right), np.flatnonzero(~right)], "none": []}
    result = list(values)
    for members in classes[normalise]:
        together = np.concatenate([values[i] for i in members]) if len(members) else np.zeros(0)
        if len(together) > 1 and np.ptp(together) > 0:
            for i in members:
                result[i] = (values[i] - together.mean()) / together.std()
    return result


# Estimators


def by_group(core: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Estimator:
    """An estimator from a core over (rewards_E, groups_E): every sampled token gets its episode's advantage.

    Where the algorithm puts KL into the reward, the rewards are those less the episode's summed KL.
    """

    def estimate(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
        return spread(experience, core(penalised(experience), experience.groups_E)), state

    return estimate


def moving_average(decay: float | None) -> Estimator:
    """`R - b` with b the moving average of earlier batches' mean rewards (decay None: b = 0). State: `baseline`."""

    def estimate(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
        rewards = penalised(experience)
        if decay is None:
            return spread(experience, rewards), state
        mean = float(rewards.mean())
        baseline = state.get("baseline", mean)
        advantages = subtract_baseline(rewards, baseline)
        return spread(experience, advantages), {**state, "baseline": decay * baseline + (1 - decay) * mean}

    return estimate


def batch_mean(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
    """`R - b` with b the mean reward of the batch itself. Source: REINFORCE (Williams, 1992)."""
    rewards = penalised(experience)
    return spread(experience, subtract_baseline(rewards, float(rewards.mean()))), state


def greedy_baseline(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
    """`R - R(greedy)`, with the reward of a greedy episode of the same task. Source: ReMax (arXiv:2310.10505)."""
    assert experience.greedy_E is not None
    return spread(experience, penalised(experience) - experience.greedy_E), state


def rewards_to_go(gamma: float = 1.0) -> Estimator:
    """The discounted sum of the rewards of an episode's steps, from each sampled token on."""

    def estimate(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
        found = [to_go(rewards, gamma) for rewards in token_rewards(experience)]
        return scatter(experience, found), state

    return estimate


def gae_advantages(gamma: float = 1.0, lam: float = 0.95, whitened: bool = True, across: bool = True) -> Estimator:
    """GAE over the sampled tokens of an episode, from a critic's values; see `gae`.

    whitened: over the whole batch. across: steps run over what was observed; else each observed token is a step.
    """

    def estimate(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
        found, _ = _gae(experience, gamma, lam, across)
        if whitened and found:
            bounds = np.cumsum([len(part) for part in found])[:-1]
            found = np.split(whiten(np.concatenate(found)), bounds)
        return scatter(experience, found), state

    return estimate


def gae_returns(
    experience: Experience, gamma: float = 1.0, lam: float = 0.95, across: bool = True
) -> list[list[np.ndarray]]:
    """`A + V` before whitening: what the critic should have said. Source: TD(lambda) returns, arXiv:1506.02438."""
    advantages, values = _gae(experience, gamma, lam, across)
    return scatter(experience, [a + v for a, v in zip(advantages, values, strict=True)])


def _gae(experience: Experience, gamma: float, lam: float, across: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Advantages and values of the sampled tokens of each episode, [E][n]."""
    assert experience.values_E is not None
    advantages, values = [], []
    for episode, parts, rewards in zip(
        experience.episodes, experience.values_E, token_rewards(experience), strict=True
    ):
        masks = [np.array(t.mask) for t in episode.trajectories] or [np.zeros(0, bool)]
        sampled = np.concatenate(masks)
        every = np.concatenate([part[:-1] for part in parts] or [np.zeros(0)])
        # What was cut would have gone on; what ended is paid nothing more.
        after = float(parts[-1][-1]) if parts and not episode.terminated else 0.0
        # All from the first sampled token of each trajectory on: of what stands before it the critic says nothing.
        steps = sampled if across else np.concatenate([np.cumsum(mask) > 0 for mask in masks])
        paid = np.zeros(len(sampled))
        paid[sampled] = rewards
        found = np.zeros(len(sampled))
        found[steps] = gae(paid[steps], every[steps], after, gamma, lam)
        advantages.append(found[sampled])
        values.append(every[sampled])
    return advantages, values


def batch_norm(group_baseline: bool = False, eps: float = 1e-8) -> Estimator:
    """Rewards to go, whitened over all sampled tokens of the batch. group_baseline: less the group's mean reward first.

    Source: REINFORCE++ (arXiv:2501.03262); whitened as verl does it.
    """

    def estimate(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
        if group_baseline:
            centred = group_center(penalised(experience), experience.groups_E)
            found = [np.full(_count(e), a) for e, a in zip(experience.episodes, centred, strict=True)]
        else:
            found = [to_go(rewards) for rewards in token_rewards(experience)]
        whole = whiten(np.concatenate(found)) if found else np.zeros(0)
        return scatter(experience, np.split(whole, np.cumsum([len(part) for part in found])[:-1])), state

    return estimate


def by_entropy(share: float, bonus: float, normalise: Normalise, sequences: bool = False) -> Estimator:
    """GTPO over the groups, or GRPO-S, where each episode has one number; see `entropy_weighted`."""

    def estimate(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
        assert experience.entropies_E is not None
        rewards = penalised(experience)
        entropies = [
            np.concatenate(
                [np.asarray(values)[np.array(t.mask)] for values, t in zip(parts, e.trajectories, strict=True)]
            )
            if e.trajectories
            else np.zeros(0)
            for parts, e in zip(experience.entropies_E, experience.episodes, strict=True)
        ]
        found: list[np.ndarray] = [np.zeros(0)] * len(entropies)
        for rows in _groups(experience.groups_E):
            own = [entropies[row] for row in rows]
            if sequences:
                means = np.array([entropy.mean() if len(entropy) else 0.0 for entropy in own])
                each = entropy_weighted_sequences(rewards[rows], means, share, bonus, normalise)
                paid = [np.full(len(entropy), value) for entropy, value in zip(own, each, strict=True)]
            else:
                paid = entropy_weighted(rewards[rows], own, share, bonus, normalise)
            for row, values in zip(rows, paid, strict=True):
                found[row] = values
        return scatter(experience, found), state

    return estimate


def by_step(std: Deviation, eps: float) -> Estimator:
    """Every sampled token gets the advantage of its step among all steps of its group; see `process`.

    A step is a turn of the policy, and its reward what the environment paid for it, such as `score_rewards` of a
    process-reward model. What was paid at the end counts for the last step.
    """

    def estimate(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
        lengths = [np.array(_step_lengths(episode), int) for episode in experience.episodes]
        paid = [
            np.add.reduceat(rewards, np.append(0, np.cumsum(own)[:-1])) if len(own) else np.zeros(0)
            for rewards, own in zip(token_rewards(experience), lengths, strict=True)
        ]
        found: list[np.ndarray] = [np.zeros(0)] * len(paid)
        for rows in _groups(experience.groups_E):
            for row, values in zip(rows, process([paid[row] for row in rows], std, eps), strict=True):
                found[row] = np.repeat(values, lengths[row])
        return scatter(experience, found), state

    return estimate


def _step_lengths(episode: Episode) -> list[int]:
    """How many tokens were sampled in each step; a trajectory that tells no steps is one."""
    found = []
    for trajectory in episode.trajectories:
        found += [step.end - step.start for step in trajectory.steps] or [sum(trajectory.mask)]
    return [length for length in found if length]


def token_rewards(experience: Experience) -> list[np.ndarray]:
    """The reward of each sampled token of each episode, [E][n], all trajectories of an episode in a row.

    The reward of a step stands at its last token, unless the experience says otherwise; what the episode was paid or
    charged besides, at the very last one.
    KL in the reward stands at its own token.
    """
    found, totals = [], penalised(experience)
    for index, episode in enumerate(experience.episodes):
        paid, sampled = [], []
        for number, trajectory in enumerate(episode.trajectories):
            values = np.zeros(len(trajectory.mask))
            for step in trajectory.steps if experience.paid_by_step else ():
                if step.end > step.start:
                    values[step.end - 1] += step.reward
            if experience.kl_E is not None:
                values -= experience.kl_E[index][number]
            paid.append(values)
            sampled.append(np.array(trajectory.mask))
        rewards = np.concatenate(paid)[np.concatenate(sampled)] if paid else np.zeros(0)
        if len(rewards):
            rewards[-1] += totals[index] - rewards.sum()
        found.append(rewards)
    return found


def scatter(experience: Experience, values_En: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Put the values of an episode's sampled tokens where those tokens are, and 0 elsewhere."""
    placed: list[list[np.ndarray]] = []
    for episode, values in zip(experience.episodes, values_En, strict=True):
        own, at = [], 0
        for trajectory in episode.trajectories:
            mask = np.array(trajectory.mask)
            whole = np.zeros(len(mask))
            whole[mask] = values[at : at + mask.sum()]
            at += int(mask.sum())
            own.append(whole)
        placed.append(own)
    return placed


def _count(episode: Episode) -> int:
    return sum(sum(trajectory.mask) for trajectory in episode.trajectories)


def penalised(experience: Experience) -> np.ndarray:
    """Episode rewards less the k1 of their sampled tokens, already multiplied by its coefficient."""
    if experience.kl_E is None:
        return experience.rewards_E
    return experience.rewards_E - np.array([sum(kl.sum() for kl in parts) for parts in experience.kl_E])


def spread(experience: Experience, advantages_E: np.ndarray) -> list[list[np.ndarray]]:
    """Give every sampled token its episode's advantage and every other token 0."""
    return [
        [np.where(trajectory.mask, advantage, 0.0) for trajectory in episode.trajectories]
        for episode, advantage in zip(experience.episodes, advantages_E, strict=True)
    ]


def _groups(groups_E: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(groups_E == group) for group in np.unique(groups_E)]
