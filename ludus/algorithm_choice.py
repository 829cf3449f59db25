"""What a recipe's policy phase learns by and samples with, refused where its parts do not go together."""

from __future__ import annotations

from .agents.config import SamplingConfig
from .agents.engine import Sampling
from .trainers.algorithms import Algorithm, AlgorithmError, get_algorithm
from .trainers.config import CriticConfig, PolicyConfig
from .verifiers.repetition import Loop


def chosen_algorithm(config: PolicyConfig, max_tokens: int | None = None, placement: str = "in_process") -> Algorithm:
    """The algorithm of a recipe; AlgorithmError where the rest of `policy` gives it not what it needs.

    max_tokens: of a turn, where it is known. placement: where its episodes are played.
    """
    algorithm = get_algorithm(config.algorithm, **config.options)
    if max_tokens is not None and algorithm.overlong_buffer >= max_tokens:
        raise AlgorithmError(
            f"{algorithm.name}: the penalty over the last policy.options.overlong_buffer = {algorithm.overlong_buffer}"
            f" tokens would be for every turn of at most sampling.max_tokens = {max_tokens}; lower the one or raise the"
            " other."
        )
    if "siblings" in algorithm.needs and config.group_size == 1:
        raise AlgorithmError(
            f"{algorithm.name} compares episodes of one task; raise policy.group_size = 1 to 2 or more."
        )
    if "several steps" in algorithm.needs and config.minibatches * config.epochs == 1:
        raise AlgorithmError(
            f"{algorithm.name} prices how far the steps of one rollout lead away from the policy that played it; raise "
            "policy.minibatches or policy.epochs above 1."
        )
    if algorithm.trust_region is not None and config.minibatches * config.epochs > 1:
        raise AlgorithmError(
            f"{algorithm.name} takes one step from each rollout, within a ball around the policy that played it; set "
            "policy.minibatches and policy.epochs to 1."
        )
    if config.shuffle_rewards and algorithm.needs & {"values", "greedy", "teacher"}:
        raise AlgorithmError(
            f"{algorithm.name} learns from more than the rewards that policy.shuffle_rewards shuffles, so that it"
            " would be no control; leave it out, or choose grpo."
        )
    if config.partial_tokens is not None:
        _check_pauses(config, algorithm, "policy.partial_tokens", "unset policy.partial_tokens")
    if placement == "ray_async":
        _check_pauses(config, algorithm, "rollout.placement = ray_async", "set rollout.placement: ray")
    if config.reference_every is not None and "reference" not in algorithm.needs:
        raise AlgorithmError(
            f"{algorithm.name} measures no divergence from a reference; remove policy.reference_every, or set"
            " policy.options.kl_coef above 0 where it has that option."
        )
    if config.critic != CriticConfig() and "values" not in algorithm.needs:
        raise AlgorithmError(f"{algorithm.name} has no critic; remove policy.critic, or choose ppo.")
    if "values" in algorithm.needs and config.critic.warmup_steps >= config.steps:
        raise AlgorithmError(
            f"policy.critic.warmup_steps = {config.critic.warmup_steps} leaves none of policy.steps = {config.steps}"
            " to the policy; lower it."
        )
    if "teacher" in algorithm.needs and config.teacher is None:
        raise AlgorithmError(
            f"{algorithm.name} learns from a teacher; set policy.teacher to the folder of a model or a run."
        )
    if "teacher" not in algorithm.needs and config.teacher is not None:
        raise AlgorithmError(f"{algorithm.name} has no teacher; remove policy.teacher, or choose opd or kdrl.")
    return algorithm


def _check_pauses(config: PolicyConfig, algorithm: Algorithm, what: str, fix: str) -> None:
    """Refuse what needs all episodes of a step to end in it, which `what` prevents. fix: how to do without that."""
    if algorithm.dynamic_sampling:
        raise AlgorithmError(
            f"{algorithm.name} refills groups within a step, and {what} leaves some to the next; set"
            f" policy.options.dynamic_sampling: false, or {fix}."
        )
    if "greedy" in algorithm.needs:
        raise AlgorithmError(
            f"{algorithm.name} compares with a greedy episode of the same policy, and {what} leaves"
            f" episodes to the next; {fix}, or choose rloo."
        )
    if config.curriculum is not None:
        raise AlgorithmError(
            f"policy.curriculum learns from each step's groups, and {what} leaves some to the next; unset it, or {fix}."
        )


def sampling_of(config: SamplingConfig, deadline_s: float | None, greedy: bool = False) -> Sampling:
    """How a recipe samples. deadline_s: of each generation. greedy: the likeliest tokens, as evaluations want them."""
    return Sampling(
        temperature=0.0 if greedy else config.temperature,
        top_p=1.0 if greedy else config.top_p,
        top_k=0 if greedy else config.top_k,
        max_tokens=config.max_tokens,
        stop=config.stop,
        deadline_s=deadline_s,
        stop_on_loop=None if config.stop_on_loop is None else Loop(**config.stop_on_loop.model_dump()),
    )
