"""Presets: the algorithms by name, each one call that puts parts together.

To add one, write a function from options to an Algorithm and decorate it with `@preset`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from functools import partial

from ...sandbox.errors import LudusError
from . import advantages, kl, losses, reductions
from .advantages import Deviation
from .record import Algorithm

ALGORITHMS: dict[str, Callable[..., Algorithm]] = {}


SIBLINGS = frozenset({"siblings"})


class AlgorithmError(LudusError):
    """An algorithm or an option of it that does not exist or makes no sense."""


def preset(build: Callable[..., Algorithm]) -> Callable[..., Algorithm]:
    """Register a preset under its function's name."""
    ALGORITHMS[build.__name__] = build
    return build


def get_algorithm(name: str, **options: object) -> Algorithm:
    """The preset `name` with some of its options changed; AlgorithmError names what is allowed."""
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(name, ALGORITHMS, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise AlgorithmError(f"Unknown algorithm '{name}'.{hint} Known: {', '.join(sorted(ALGORITHMS))}.")
    allowed = inspect.signature(ALGORITHMS[name]).parameters
    for option, value in options.items():
        if option not in allowed:
            near = difflib.get_close_matches(option, allowed, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise AlgorithmError(f"{name} has no option '{option}'.{hint} Allowed: {', '.join(allowed) or 'none'}.")
        default = allowed[option].default
        if isinstance(default, bool) != isinstance(value, bool) or (
            isinstance(default, (int, float)) and not isinstance(value, (int, float))
        ):
            raise AlgorithmError(f"{name}.{option} = {value!r} must be of the kind of its default {default!r}.")
        if isinstance(default, int) and not isinstance(value, int):
            raise AlgorithmError(f"{name}.{option} = {value!r} must be a whole number, such as {default!r}.")
    algorithm = ALGORITHMS[name](**options)
    return algorithm


def _clip(clip_low: float, clip_high: float) -> Callable[..., object]:
    if not 0 < clip_low < 1:
        raise AlgorithmError(f"clip_low = {clip_low} must lie between 0 and 1.")
    if clip_high < clip_low:
        raise AlgorithmError(
            f"clip_high = {clip_high} is below clip_low = {clip_low}; raise clip_high or lower clip_low."
        )
    return partial(losses.ppo_clip, clip_low=clip_low, clip_high=clip_high)


def _reference(kl_coef: float) -> frozenset[str]:
    if kl_coef < 0:
        raise AlgorithmError(f"kl_coef = {kl_coef} must not be negative.")
    return frozenset({"reference"} if kl_coef > 0 else ())


@preset
def reinforce(baseline_decay: float = 0.0) -> Algorithm:
    """REINFORCE (Williams, 1992); baseline_decay above 0 subtracts a moving average of rewards."""
    if not 0 <= baseline_decay < 1:
        raise AlgorithmError(f"baseline_decay = {baseline_decay} must be at least 0 and below 1.")
    return Algorithm(
        name="reinforce",
        estimator=advantages.moving_average(baseline_decay or None),
        loss=losses.reinforce,
        reduction=reductions.sequence_mean_token_sum,
    )


@preset
def rloo(kl_coef: float = 0.0) -> Algorithm:
    """RLOO (arXiv:2402.14740): each episode against the mean of its siblings, k1 in the reward."""
    return Algorithm(
        name="rloo",
        estimator=advantages.by_group(advantages.leave_one_out),
        loss=losses.reinforce,
        reduction=reductions.sequence_mean_token_sum,
        kl=kl.k1,
        kl_coef=kl_coef,
        kl_in="reward",
        needs=_reference(kl_coef) | SIBLINGS,
    )


@preset
def grpo(
    clip_low: float = 0.2, clip_high: float = 0.2, kl_coef: float = 0.04, std: Deviation = "bessel", eps: float = 1e-6
) -> Algorithm:
    """GRPO (arXiv:2402.03300): group-normalised rewards, clipped ratio, k3 to the reference in the loss."""
    if std not in ("bessel", "population", "none"):
        raise AlgorithmError(f"grpo.std = {std!r} must be one of bessel, population, none.")
    if eps < 0:
        raise AlgorithmError(f"grpo.eps = {eps} must not be negative.")
    return Algorithm(
        name="grpo",
        estimator=advantages.by_group(partial(advantages.group_norm, std=std, eps=eps)),
        loss=_clip(clip_low, clip_high),  # type: ignore[arg-type]
        reduction=reductions.sequence_mean_token_mean,
        kl=kl.k3,
        kl_coef=kl_coef,
        needs=_reference(kl_coef) | SIBLINGS,
    )


@preset
def dr_grpo(clip_low: float = 0.2, clip_high: float = 0.2, horizon: int = 64) -> Algorithm:
    """Dr. GRPO (arXiv:2503.20783): centred rewards and a constant length, which leave no bias by length or spread."""
    if horizon < 1:
        raise AlgorithmError(f"dr_grpo.horizon = {horizon} must be at least 1 token.")
    return Algorithm(
        name="dr_grpo",
        estimator=advantages.by_group(advantages.group_center),
        loss=_clip(clip_low, clip_high),  # type: ignore[arg-type]
        reduction=partial(reductions.constant_length, horizon=horizon),
        needs=SIBLINGS,
    )


@preset
def dapo(
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dynamic_sampling: bool = True,
    max_refills: int = 8,
    overlong_buffer: int = 0,
    drop_truncated: bool = False,
) -> Algorithm:
    """DAPO (arXiv:2503.14476): higher upper bound, token mean, groups without spread refilled, overlong penalty."""
    if max_refills < 0 or overlong_buffer < 0:
        raise AlgorithmError("dapo.max_refills and dapo.overlong_buffer must not be negative; 0 switches them off.")
    return Algorithm(
        name="dapo",
        estimator=advantages.by_group(advantages.group_norm),
        loss=_clip(clip_low, clip_high),  # type: ignore[arg-type]
        reduction=reductions.token_mean,
        needs=SIBLINGS,
        dynamic_sampling=dynamic_sampling,
        max_refills=max_refills,
        overlong_buffer=overlong_buffer,
        drop_truncated=drop_truncated,
    )
