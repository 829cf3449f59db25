"""Presets: the algorithms by name, each one call that puts parts together.

To add one, write a function from options to an Algorithm and decorate it with `@preset`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from . import advantages, corrections, kl, losses, reductions
from .advantages import Alone, Deviation, Normalise
from .record import Algorithm, AlgorithmError, Estimator, PolicyLoss, TrustRegion
from .variations import VARIATIONS, vary

ALGORITHMS: dict[str, Callable[..., Algorithm]] = {}


SIBLINGS = frozenset({"siblings"})


VERL: dict[str, object] = {"eps": 1e-6, "alone": "reward"}
VERL_LOSS: dict[str, object] = {"dual_clip": 3.0, "reduction": "token_mean"}
LIKE: dict[tuple[str, str], dict[str, object]] = {
    ("grpo", "trl"): {"eps": 1e-4, "kl_weight": "old"},
    ("dapo", "trl"): {"eps": 1e-4},
    ("gspo", "trl"): {"eps": 1e-4},
    ("sapo", "trl"): {"eps": 1e-4},
    ("cispo", "trl"): {"eps": 1e-4, "clip_low": 1.0, "highest": 5.0},
    ("rloo", "trl"): {"ratio": "sequence_sum"},
    ("ppo", "trl"): {"across": False},
    ("grpo", "verl"): {**VERL, **VERL_LOSS, "kl_weight": "none"},
    ("dapo", "verl"): {**VERL, **VERL_LOSS},
    ("gspo", "verl"): VERL,
    ("sapo", "verl"): VERL,
    ("cispo", "verl"): {**VERL, "clip_low": 0.2, "clip_high": 0.2, "highest": 0.0},
    ("ppo", "verl"): {**VERL_LOSS, "across": True},
}
"""By preset and library: the options that give its conventions."""
RATIOS = {"rloo": "sequence_sum", "opd": "token"}
"""The ratio that is clipped, of presets that can do without."""


def preset(build: Callable[..., Algorithm]) -> Callable[..., Algorithm]:
    """Register a preset under its function's name, in which `_plus` stands for +."""
    ALGORITHMS[build.__name__.replace("_plus", "+")] = build
    return build


def get_algorithm(name: str, **options: object) -> Algorithm:
    """The preset `name` with some of its options, or of `VARIATIONS`, changed; AlgorithmError names what is allowed.

    like: a library whose conventions the preset takes where they differ; options beside it come after them.
    """
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(name, ALGORITHMS, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise AlgorithmError(f"Unknown algorithm '{name}'.{hint} Known: {', '.join(sorted(ALGORITHMS))}.")
    like = options.pop("like", None)
    if like is not None and (not isinstance(like, str) or (name, like) not in LIKE):
        known = ", ".join(sorted(library for known, library in LIKE if known == name)) or "none"
        raise AlgorithmError(f"{name} has no conventions of its own like={like!r}; known: {known}.")
    conventions = dict(LIKE.get((name, str(like)), {}))
    if options.get("kl_coef") == 0:
        conventions.pop("kl_weight", None)  # of a term that is not there
    options = {**conventions, **options}
    allowed = inspect.signature(ALGORITHMS[name]).parameters
    _refuse_idle_clips(name, options)
    changes = {
        option: options.pop(option) for option in list(options) if option not in allowed and option in VARIATIONS
    }
    for option, value in options.items():
        if option not in allowed:
            every = list(dict.fromkeys([*allowed, "like", *VARIATIONS]))
            near = difflib.get_close_matches(option, every, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise AlgorithmError(f"{name} has no option '{option}'.{hint} Allowed: {', '.join(every)}.")
        default = allowed[option].default
        if isinstance(default, bool) != isinstance(value, bool) or (
            isinstance(default, (int, float)) and not isinstance(value, (int, float))
        ):
            raise AlgorithmError(f"{name}.{option} = {value!r} must be of the kind of its default {default!r}.")
        if isinstance(default, int) and not isinstance(value, int):
            raise AlgorithmError(f"{name}.{option} = {value!r} must be a whole number, such as {default!r}.")
    return vary(ALGORITHMS[name](**options), changes)


def _refuse_idle_clips(name: str, options: Mapping[str, object]) -> None:
    """Refuse bounds of a ratio where the loss has none."""
    given = [option for option in ("clip_low", "clip_high") if option in options]
    if given and options.get("full_vocabulary") is True:
        raise AlgorithmError(
            f"{name} learns from whole distributions, which have no ratio that {given[0]} could bound; leave it out, or"
            " set full_vocabulary: false."
        )
    ratio = inspect.signature(ALGORITHMS[name]).parameters.get("ratio")
    if given and ratio is not None and options.get("ratio", ratio.default) == "none":
        raise AlgorithmError(
            f"{name} with ratio: none has no ratio that {given[0]} could bound; leave it out, or set ratio:"
            f" {RATIOS[name]}."
        )


def _clip(clip_low: float, clip_high: float, loss: Callable[..., Any] = losses.ppo_clip, **options: Any) -> PolicyLoss:
    if not 0 < clip_low < 1:
        raise AlgorithmError(f"clip_low = {clip_low} must lie between 0 and 1.")
    if clip_high < clip_low:
        raise AlgorithmError(
            f"clip_high = {clip_high} is below clip_low = {clip_low}; raise clip_high or lower clip_low."
        )
    return partial(loss, clip_low=clip_low, clip_high=clip_high, **options)


def _group_norm(name: str, eps: float, std: Deviation = "bessel", alone: Alone = "zero") -> Estimator:
    if alone not in ("zero", "reward"):
        raise AlgorithmError(f"{name}.alone = {alone!r} must be zero or reward.")
    if std not in ("bessel", "population", "none"):
        raise AlgorithmError(f"{name}.std = {std!r} must be one of bessel, population, none.")
    if eps < 0:
        raise AlgorithmError(f"{name}.eps = {eps} must not be negative.")
    return advantages.by_group(partial(advantages.group_norm, std=std, eps=eps, alone=alone))


def _siblings(alone: Alone) -> frozenset[str]:
    return SIBLINGS if alone == "zero" else frozenset()


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
def reinforce_baseline(baseline_decay: float = 0.9, baseline: str = "moving") -> Algorithm:
    """REINFORCE (Williams, 1992) with a baseline: a "moving" average of rewards, or the mean of the "batch" itself."""
    if baseline not in ("moving", "batch"):
        raise AlgorithmError(f"reinforce_baseline.baseline = {baseline!r} must be moving or batch.")
    moving = replace(reinforce(baseline_decay), name="reinforce_baseline")
    return moving if baseline == "moving" else replace(moving, estimator=advantages.batch_mean)


@preset
def reinforce_plus_plus(clip_low: float = 0.2, clip_high: float = 0.2, kl_coef: float = 0.01) -> Algorithm:
    """REINFORCE++ (arXiv:2501.03262): rewards to go, whitened over the batch; k1 in the reward."""
    return Algorithm(
        name="reinforce++",
        estimator=advantages.batch_norm(),
        loss=_clip(clip_low, clip_high),
        reduction=reductions.token_mean,
        kl=kl.k1,
        kl_coef=kl_coef,
        kl_in="reward",
        needs=_reference(kl_coef),
    )


@preset
def reinforce_plus_plus_baseline(clip_low: float = 0.2, clip_high: float = 0.2, kl_coef: float = 0.01) -> Algorithm:
    """REINFORCE++-baseline (arXiv:2501.03262): rewards less their group's mean, whitened over the batch; k2."""
    return Algorithm(
        name="reinforce++_baseline",
        estimator=advantages.batch_norm(group_baseline=True),
        loss=_clip(clip_low, clip_high),
        reduction=reductions.token_mean,
        kl=kl.k2,
        kl_coef=kl_coef,
        needs=_reference(kl_coef) | SIBLINGS,
    )


@preset
def rloo(kl_coef: float = 0.0, ratio: str = "none", clip_low: float = 0.2, clip_high: float = 0.2) -> Algorithm:
    """RLOO (arXiv:2402.14740): each episode against the mean of its siblings, k1 in the reward.

    ratio: "none" has the gradient of REINFORCE; "sequence_sum" clips the ratio of whole responses, as TRL does.
    """
    if ratio not in ("none", "sequence_sum"):
        raise AlgorithmError(f"rloo.ratio = {ratio!r} must be none or sequence_sum.")
    plain = ratio == "none"
    return Algorithm(
        name="rloo",
        estimator=advantages.by_group(advantages.leave_one_out),
        loss=losses.reinforce if plain else _clip(clip_low, clip_high, level="sequence_sum"),
        reduction=reductions.sequence_mean_token_sum if plain else reductions.sequence_mean_token_mean,
        ratio="token" if plain else "sequence",
        kl=kl.k1,
        kl_coef=kl_coef,
        kl_in="reward",
        needs=_reference(kl_coef) | SIBLINGS,
    )


@preset
def ppo(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.0,
    gamma: float = 1.0,
    lam: float = 0.95,
    whiten: bool = True,
    across: bool = True,
) -> Algorithm:
    """PPO (arXiv:1707.06347) with a critic: GAE over sampled tokens, clipped ratio, k1 in the reward.

    across: a step of GAE runs from one sampled token to the next, whatever was observed between; false: every token
    that was observed is a step, too.
    """
    if not 0 <= gamma <= 1 or not 0 <= lam <= 1:
        raise AlgorithmError(f"ppo.gamma = {gamma} and ppo.lam = {lam} must lie between 0 and 1.")
    return Algorithm(
        name="ppo",
        estimator=advantages.gae_advantages(gamma, lam, whiten, across),
        loss=_clip(clip_low, clip_high),
        reduction=reductions.token_mean,
        kl=kl.k1,
        kl_coef=kl_coef,
        kl_in="reward",
        value_target=partial(advantages.gae_returns, gamma=gamma, lam=lam, across=across),
        needs=_reference(kl_coef) | {"values"} | (set() if across else {"observed values"}),
    )


@preset
def ppo_kl(
    kl_coef: float = 1.0, kl_target: float = 0.01, gamma: float = 1.0, lam: float = 0.95, whiten: bool = True
) -> Algorithm:
    """PPO with a price on the divergence from the old policy (arXiv:1707.06347, section 4) instead of clipping.

    kl_target: nats a token; the price doubles above 1.5 times it and halves below two thirds, up to 1024 times.
    """
    if kl_target <= 0 or kl_coef <= 0:
        raise AlgorithmError(f"ppo_kl.kl_target = {kl_target} and ppo_kl.kl_coef = {kl_coef} must be above 0.")
    return replace(
        ppo(gamma=gamma, lam=lam, whiten=whiten),
        name="ppo_kl",
        loss=losses.ppo_ratio,
        kl=kl.k3,
        kl_coef=kl_coef,
        kl_in="loss",
        kl_to="old",
        next_kl_coef=partial(kl.doubling, target=kl_target, lowest=kl_coef / 1024, highest=kl_coef * 1024),
        needs=frozenset({"values", "several steps"}),
    )


@preset
def trpo(
    radius: float = 0.01,
    damping: float = 0.1,
    cg_steps: int = 10,
    critic: bool = True,
    gamma: float = 1.0,
    lam: float = 0.95,
    curvature_share: float = 0.1,
) -> Algorithm:
    """TRPO (arXiv:1502.05477), for small policies: the natural gradient, as far as `radius` nats a token allow.

    critic: GAE, whitened; without it, rewards to go, whitened over the batch. curvature_share: of the rollout's
    trajectories, from which the curvature is estimated (appendix C). The rate of `policy.optimizer` plays no part.
    """
    with_critic = ppo(gamma=gamma, lam=lam)
    return replace(
        with_critic,
        name="trpo",
        estimator=with_critic.estimator if critic else advantages.batch_norm(),
        value_target=with_critic.value_target if critic else None,
        loss=losses.ppo_ratio,
        kl=None,
        trust_region=TrustRegion(radius, damping, cg_steps, curvature_share=curvature_share),
        needs=frozenset({"values"} if critic else ()),
    )


@preset
def remax(kl_coef: float = 0.0) -> Algorithm:
    """ReMax (arXiv:2310.10505): each episode against a greedy one of the same task; k1 in the reward."""
    return Algorithm(
        name="remax",
        estimator=advantages.greedy_baseline,
        loss=losses.reinforce,
        reduction=reductions.sequence_mean_token_sum,
        kl=kl.k1,
        kl_coef=kl_coef,
        kl_in="reward",
        needs=_reference(kl_coef) | {"greedy"},
    )


@preset
def grpo(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.04,
    std: Deviation = "bessel",
    eps: float = 1e-6,
    alone: Alone = "zero",
    kl_weight: Literal["none", "old", "sampler"] = "none",
) -> Algorithm:
    """GRPO (arXiv:2402.03300): group-normalised rewards, clipped ratio, k3 to the reference in the loss.

    alone: what the only episode of its task gets: "zero", or its "reward". kl_weight: "old" or "sampler" weighs k3 by
    the ratio to that policy, which makes its gradient unbiased.
    """
    if kl_weight not in ("none", "old", "sampler"):
        raise AlgorithmError(f"grpo.kl_weight = {kl_weight!r} must be one of none, old, sampler.")
    if kl_coef == 0 and kl_weight != "none":
        raise AlgorithmError(
            f"grpo has no KL term that kl_weight = {kl_weight!r} could weigh; set kl_coef above 0, or kl_weight: none."
        )
    return Algorithm(
        name="grpo",
        estimator=_group_norm("grpo", eps, std, alone),
        loss=_clip(clip_low, clip_high),
        reduction=reductions.sequence_mean_token_mean,
        kl=kl.k3,
        kl_coef=kl_coef,
        kl_weight=None if kl_weight == "none" else kl_weight,
        needs=_reference(kl_coef) | _siblings(alone),
    )


@preset
def dr_grpo(clip_low: float = 0.2, clip_high: float = 0.2, horizon: int = 64) -> Algorithm:
    """Dr. GRPO (arXiv:2503.20783): centred rewards and a constant length, which leave no bias by length or spread."""
    if horizon < 1:
        raise AlgorithmError(f"dr_grpo.horizon = {horizon} must be at least 1 token.")
    return Algorithm(
        name="dr_grpo",
        estimator=advantages.by_group(advantages.group_center),
        loss=_clip(clip_low, clip_high),
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
    eps: float = 1e-6,
    alone: Alone = "zero",
) -> Algorithm:
    """DAPO (arXiv:2503.14476): higher upper bound, token mean, groups without spread refilled, overlong penalty."""
    if max_refills < 0 or overlong_buffer < 0:
        raise AlgorithmError("dapo.max_refills and dapo.overlong_buffer must not be negative; 0 switches them off.")
    return Algorithm(
        name="dapo",
        estimator=_group_norm("dapo", eps, alone=alone),
        loss=_clip(clip_low, clip_high),
        reduction=reductions.token_mean,
        needs=SIBLINGS if dynamic_sampling else _siblings(alone),  # a group of one never has spread
        dynamic_sampling=dynamic_sampling,
        max_refills=max_refills,
        overlong_buffer=overlong_buffer,
        drop_truncated=drop_truncated,
    )


@preset
def gspo(
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    token_form: bool = False,
    eps: float = 1e-6,
    alone: Alone = "zero",
) -> Algorithm:
    """GSPO (arXiv:2507.18071): one ratio for each response, the exponential of the mean log-ratio of its tokens."""
    return Algorithm(
        name="gspo",
        estimator=_group_norm("gspo", eps, alone=alone),
        loss=_clip(clip_low, clip_high, losses.gspo, token_form=token_form),
        reduction=reductions.sequence_mean_token_mean,
        ratio="sequence",
        needs=_siblings(alone),
    )


@preset
def cispo(
    clip_low: float = 0.2, clip_high: float = 0.2, highest: float = 0.0, eps: float = 1e-6, alone: Alone = "zero"
) -> Algorithm:
    """CISPO (arXiv:2506.13585): the clipped ratio weighs the gradient and stops none.

    clip_low: 1 leaves the ratio without a lower bound. highest: above 0, an absolute upper bound instead of
    `1 + clip_high`.
    """
    if not 0 < clip_low <= 1 or clip_high <= 0 or highest < 0:
        raise AlgorithmError(
            f"cispo: clip_low = {clip_low} must lie above 0 and up to 1, clip_high = {clip_high} above 0, and highest ="
            f" {highest} must not be negative."
        )
    return Algorithm(
        name="cispo",
        estimator=_group_norm("cispo", eps, alone=alone),
        loss=partial(losses.cispo, clip_low=clip_low, clip_high=clip_high, highest=highest or None),
        reduction=reductions.token_mean,
        needs=_siblings(alone),
    )


@preset
def sapo(tau_positive: float = 1.0, tau_negative: float = 1.05, eps: float = 1e-6, alone: Alone = "zero") -> Algorithm:
    """SAPO (arXiv:2511.20347): a soft gate over the ratio of each token instead of clipping."""
    if tau_positive <= 0 or tau_negative <= 0:
        raise AlgorithmError("sapo.tau_positive and sapo.tau_negative must be above 0.")
    return Algorithm(
        name="sapo",
        estimator=_group_norm("sapo", eps, alone=alone),
        loss=partial(losses.sapo, tau_positive=tau_positive, tau_negative=tau_negative),
        reduction=reductions.sequence_mean_token_mean,
        needs=_siblings(alone),
    )


@preset
def gtpo(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    share: float = 1.0,
    bonus: float = 0.1,
    normalise: Normalise = "joint",
) -> Algorithm:
    """GTPO (arXiv:2508.04349): tokens share the reward by the entropy with which they were sampled."""
    return Algorithm(
        name="gtpo",
        estimator=advantages.by_entropy(share, bonus, _known("gtpo", normalise)),
        loss=_clip(clip_low, clip_high),
        reduction=reductions.token_mean,
        needs=SIBLINGS | {"entropy"},
    )


@preset
def prm_grpo(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.04,
    std: Deviation = "bessel",
    eps: float = 1e-6,
) -> Algorithm:
    """GRPO with process supervision (arXiv:2402.03300, section 4.1.3): steps are paid, and normalised by group."""
    _group_norm("prm_grpo", eps, std)  # refuses what makes no sense
    return Algorithm(
        name="prm_grpo",
        estimator=advantages.by_step(std, eps),
        loss=_clip(clip_low, clip_high),
        reduction=reductions.token_mean,
        kl=kl.k3,
        kl_coef=kl_coef,
        needs=_reference(kl_coef) | SIBLINGS,
    )


@preset
def grpo_s(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    share: float = 1.0,
    bonus: float = 0.1,
    normalise: Normalise = "joint",
) -> Algorithm:
    """GRPO-S (arXiv:2508.04349): GTPO with one number, and one ratio, for each response."""
    return Algorithm(
        name="grpo_s",
        estimator=advantages.by_entropy(share, bonus, _known("grpo_s", normalise), sequences=True),
        loss=_clip(clip_low, clip_high, level="sequence_mean"),
        reduction=reductions.sequence_mean_token_mean,
        ratio="sequence",
        needs=SIBLINGS | {"entropy"},
    )


@preset
def kimi_k15(tau: float = 0.1, length_reward: float = 0.5, per_token: bool = False) -> Algorithm:
    """Kimi k1.5 (arXiv:2501.12599): policy mirror descent with a reward for short answers.

    tau: price of the squared log-ratio of a response. length_reward: weight of that reward; 0 is without it. per_token:
    the loss of a response is divided by its length.
    """
    if tau < 0 or length_reward < 0:
        raise AlgorithmError("kimi_k15.tau and kimi_k15.length_reward must not be negative.")
    return Algorithm(
        name="kimi_k15",
        estimator=advantages.by_group(advantages.group_center),
        loss=partial(losses.mirror, tau=tau),
        reduction=reductions.sequence_mean_token_mean if per_token else reductions.sequence_mean_token_sum,
        needs=SIBLINGS,
        length_reward=length_reward,
    )


@preset
def v32(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.001,
    drift: float = 1.0,
    drift_from: Literal["sampler", "old"] = "sampler",
) -> Algorithm:
    """DeepSeek-V3.2 (arXiv:2512.02556): centred rewards, unbiased k3, and no negative lessons from drifted responses.

    drift: mean `sampler - logp` above which a response with a negative advantage leaves the loss. drift_from: what it
    is measured from, the sampler or the old policy.
    """
    if drift <= 0:
        raise AlgorithmError(f"v32.drift = {drift} must be above 0.")
    if drift_from not in ("sampler", "old"):
        raise AlgorithmError(f"v32.drift_from = {drift_from!r} must be sampler or old.")
    return Algorithm(
        name="v32",
        estimator=advantages.by_group(advantages.group_center),
        loss=_clip(clip_low, clip_high),
        reduction=reductions.sequence_mean_token_mean,
        kl=kl.k3,
        kl_coef=kl_coef,
        kl_weight="old",
        corrections=(partial(corrections.drop_drifted, delta=drift, anchor=drift_from),),
        needs=_reference(kl_coef) | SIBLINGS,
    )


@preset
def long2short(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    length_reward: float = 0.5,
    eps: float = 1e-6,
    std: Deviation = "bessel",
) -> Algorithm:
    """Long2Short (Kimi k1.5, arXiv:2501.12599, section 2.4): a model that answers at length learns to be brief.

    For a second phase, from the checkpoint of one that was trained without a length reward. length_reward: weight of
    the reward for short right answers. std: with "none" rewards are centred within the group and not divided: where no
    answer is right, lengths are all that rewards differ by, and divided by their deviation they teach to guess.
    """
    if length_reward <= 0:
        raise AlgorithmError(f"long2short.length_reward = {length_reward} must be above 0; without it, take grpo.")
    return Algorithm(
        name="long2short",
        estimator=_group_norm("long2short", eps, std),
        loss=_clip(clip_low, clip_high),
        reduction=reductions.token_mean,
        needs=SIBLINGS,
        length_reward=length_reward,
    )


@preset
def opd(
    clip_low: float = 0.2, clip_high: float = 0.2, full_vocabulary: bool = False, ratio: str = "token"
) -> Algorithm:
    """On-policy distillation (arXiv:2306.13649): the teacher says of each token that the policy sampled what it gives.

    full_vocabulary: the reverse divergence over the whole vocabulary at each token instead of the sampled one alone.
    ratio: "token" clips that of each token; "none" has the loss of REINFORCE.
    """
    if ratio not in ("token", "none"):
        raise AlgorithmError(f"opd.ratio = {ratio!r} must be token or none.")
    if full_vocabulary and ratio == "none":
        raise AlgorithmError("opd: over the whole vocabulary no token has a ratio; leave opd.ratio out.")
    sampled = _clip(clip_low, clip_high) if ratio == "token" else losses.reinforce
    return Algorithm(
        name="opd",
        estimator=advantages.distill,
        loss=losses.reverse_kl if full_vocabulary else sampled,
        reduction=reductions.token_mean,
        weigh_foreign=not full_vocabulary,  # what it learns of a state depends on no sample
        needs=frozenset({"teacher", "teacher's distribution"} if full_vocabulary else {"teacher"}),
    )


@preset
def kdrl(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 5e-3,
    kl_step: float = 5e-5,
    kl_least: float = 1e-3,
    kl_below: float = 0.5,
    eps: float = 1e-6,
) -> Algorithm:
    """KDRL (arXiv:2506.02208): GRPO with k2 to a teacher, whose price falls, in episodes that were paid little.

    kl_coef falls by kl_step with each step, down to kl_least. kl_below: the teacher has a say where the reward is less.
    """
    if not 0 <= kl_least <= kl_coef or kl_coef == 0 or kl_step < 0:
        raise AlgorithmError(
            f"kdrl: kl_coef = {kl_coef} must be above 0, kl_least = {kl_least} between 0 and it, and kl_step ="
            f" {kl_step} not negative."
        )
    return Algorithm(
        name="kdrl",
        estimator=_group_norm("kdrl", eps),
        loss=_clip(clip_low, clip_high),
        reduction=reductions.token_mean,
        kl=kl.k2,
        kl_coef=kl_coef,
        kl_to="teacher",
        kl_below=kl_below,
        next_kl_coef=partial(kl.falling, step=kl_step, least=kl_least),
        needs=SIBLINGS | {"teacher"},
    )


def _known(name: str, normalise: Normalise) -> Normalise:
    if normalise not in ("joint", "per_class", "none"):
        raise AlgorithmError(f"{name}.normalise = {normalise!r} must be one of joint, per_class, none.")
    return normalise
