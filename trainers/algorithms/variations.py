"""Variations: options that every preset takes beside its own, each a change of one part of the record.

Invariant: an option that the record has no use for is refused with the reason, so that none is set in vain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from . import advantages, corrections, kl, losses, reductions
from .record import Algorithm, AlgorithmError, Correction

Options = Mapping[str, Any]

VARIATIONS: dict[str, type | tuple[str, ...]] = {
    "kl_form": tuple(kl.FORMS),
    "kl_weight": ("none", "old", "sampler"),
    "k3_clip": float,
    "kl_target": float,
    "tis": float,
    "tis_level": ("token", "sequence"),
    "mis_low": float,
    "mis_high": float,
    "decoupled": bool,
    "drift": float,
    "drift_from": ("sampler", "old"),
    "dual_clip": float,
    "entropy_coef": float,
    "overlong_buffer": int,
    "drop_truncated": bool,
    "reduction": ("token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum"),
    "counts": ("episodes", "trajectories"),
}
"""By name: the kind of value, or the values that there are."""
WEIGHTS = ("tis", "tis_level", "mis_low", "mis_high", "decoupled", "drift", "drift_from")
"""Those that weigh sampled tokens."""


def vary(algorithm: Algorithm, options: Options) -> Algorithm:
    """The algorithm with what the options change. Raises AlgorithmError, one sentence with the reason."""
    for option, value in options.items():
        _check_kind(algorithm.name, option, value)
    for part in (_kl, _samples, _corrections, _drift, _dual_clip, _entropy, _reduction, _rest):
        algorithm = part(algorithm, options)
    return algorithm


def _check_kind(name: str, option: str, value: object) -> None:
    kind = VARIATIONS[option]
    if isinstance(kind, tuple):
        if value not in kind:
            raise AlgorithmError(f"{name}.{option} = {value!r} must be one of {', '.join(kind)}.")
    elif kind is bool:
        if not isinstance(value, bool):
            raise AlgorithmError(f"{name}.{option} = {value!r} must be true or false.")
    elif isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        raise AlgorithmError(f"{name}.{option} = {value!r} must be a {'number' if kind is float else 'whole number'}.")


def _kl(algorithm: Algorithm, options: Options) -> Algorithm:
    """How the KL term is estimated, weighed, held and priced."""
    given = [option for option in ("kl_form", "kl_weight", "k3_clip", "kl_target") if option in options]
    if not given:
        return algorithm
    name = algorithm.name
    if algorithm.kl is None or algorithm.kl_coef == 0:
        mend = f"leave {given[0]} out" if algorithm.kl is None else "set kl_coef above 0"
        raise AlgorithmError(f"{name} has no KL term that {given[0]} could change; {mend}, or choose grpo.")
    form = options.get("kl_form", getattr(algorithm.kl, "__name__", ""))
    if "kl_form" in options and form != "k1" and algorithm.kl_in == "reward":
        why = "in the reward is biased" if form in ("k2", "k3") else "is a form of gradient, and a reward has none"
        raise AlgorithmError(
            f"{name} pays its KL term in the reward, and {form} {why}; leave kl_form out, or choose grpo or"
            " reinforce++_baseline, which have it in the loss."
        )
    if "kl_form" in options and form != "k3" and algorithm.kl_to == "old":
        raise AlgorithmError(f"{name} measures the divergence from the old policy, which is k3; leave kl_form out.")
    changes: dict[str, Any] = {"kl": kl.FORMS[form]} if "kl_form" in options else {}
    if "k3_clip" in options:
        if form not in ("k3", "k3_straight"):
            raise AlgorithmError(f"{name}: k3_clip holds k3, and the KL term is {form}; leave it out.")
        if options["k3_clip"] <= 0:
            raise AlgorithmError(f"{name}.k3_clip = {options['k3_clip']} must be above 0 nats.")
        changes["kl"] = partial(kl.FORMS[form], clip=options["k3_clip"])
    if "kl_weight" in options:
        changes["kl_weight"] = None if options["kl_weight"] == "none" else options["kl_weight"]
    if "kl_target" in options:
        if algorithm.next_kl_coef is not None:
            raise AlgorithmError(f"{name}: the price of the KL term follows a rule of its own; leave kl_target out.")
        if options["kl_target"] <= 0:
            raise AlgorithmError(f"{name}.kl_target = {options['kl_target']} must be above 0 nats a token.")
        changes["next_kl_coef"] = partial(kl.proportional, target=options["kl_target"])
    return replace(algorithm, **changes)


def _samples(algorithm: Algorithm, options: Options) -> Algorithm:
    """Refuse factors of sampled tokens where the loss is of whole distributions."""
    given = [option for option in options if option in WEIGHTS]
    if given and algorithm.loss is losses.reverse_kl:
        raise AlgorithmError(
            f"{algorithm.name} learns from whole distributions and from no sampled token that {given[0]} could weigh;"
            " leave it out, or set full_vocabulary: false."
        )
    return algorithm


def _corrections(algorithm: Algorithm, options: Options) -> Algorithm:
    """What samples of another policy weigh: bounded (tis), only within bounds (mis), or without any (decoupled)."""
    name = algorithm.name
    masks = "mis_low" in options or "mis_high" in options
    ways = [
        way
        for way, given in (("tis", "tis" in options), ("mis", masks), ("decoupled", options.get("decoupled")))
        if given
    ]
    if len(ways) > 1:
        raise AlgorithmError(f"{name}: {' and '.join(ways)} are weights of the same tokens; choose one.")
    if "tis_level" in options and not options.get("tis"):
        raise AlgorithmError(f"{name}: tis_level says what tis weighs; set tis, for instance to 2.0.")
    if not ways:
        return algorithm
    found: Correction | None = None
    if masks:
        low, high = options.get("mis_low", 0.5), options.get("mis_high", 2.0)
        if not 0 <= low < 1 < high:
            raise AlgorithmError(f"{name}: mis_low = {low} must lie from 0 to below 1, and mis_high = {high} above 1.")
        found = partial(corrections.masked_weight, lowest=low, highest=high)
    elif "tis" in options:
        bound = options["tis"]
        if bound < 0 or 0 < bound < 1:
            raise AlgorithmError(f"{name}.tis = {bound} must be at least 1, or 0 for no weights at all.")
        level = options.get("tis_level", "token")
        found = partial(corrections.truncated_weight, highest=bound, level=level) if bound else None
    else:
        found = corrections.proximal_weight
    added = () if found is None else (found,)
    return replace(algorithm, corrections=(*algorithm.corrections, *added), weigh_foreign=False)


def _drift(algorithm: Algorithm, options: Options) -> Algorithm:
    """Responses with A < 0 that the policy has moved away from leave the loss."""
    if "drift" not in options:
        if "drift_from" in options:
            raise AlgorithmError(f"{algorithm.name}: drift_from says from where drift is measured; set drift, too.")
        return algorithm
    if options["drift"] <= 0:
        raise AlgorithmError(f"{algorithm.name}.drift = {options['drift']} must be above 0 nats a token.")
    anchor = options.get("drift_from", "sampler")
    mask = partial(corrections.drop_drifted, delta=options["drift"], anchor=anchor)
    return replace(algorithm, corrections=(*algorithm.corrections, mask))


def _dual_clip(algorithm: Algorithm, options: Options) -> Algorithm:
    if "dual_clip" not in options:
        return algorithm
    if getattr(algorithm.loss, "func", None) is not losses.ppo_clip:
        raise AlgorithmError(f"{algorithm.name} does not clip as PPO does; leave dual_clip out, or choose grpo.")
    if options["dual_clip"] <= 1:
        raise AlgorithmError(f"{algorithm.name}.dual_clip = {options['dual_clip']} must be above 1, for instance 3.")
    clipped: partial[Any] = partial(algorithm.loss, **{"dual_clip": float(options["dual_clip"])})
    return replace(algorithm, loss=clipped)


def _entropy(algorithm: Algorithm, options: Options) -> Algorithm:
    coefficient = options.get("entropy_coef", algorithm.entropy_coef)
    if coefficient < 0:
        raise AlgorithmError(f"{algorithm.name}.entropy_coef = {coefficient} must not be negative.")
    return replace(algorithm, entropy_coef=float(coefficient))


def _reduction(algorithm: Algorithm, options: Options) -> Algorithm:
    name = algorithm.name
    if "reduction" in options:
        if getattr(algorithm.reduction, "func", None) is reductions.constant_length:
            raise AlgorithmError(f"{name} divides by its horizon; leave reduction out, or choose grpo with std: none.")
        if getattr(algorithm.loss, "func", None) is losses.mirror:
            raise AlgorithmError(f"{name}: the loss is of whole responses; leave reduction out, or set per_token.")
        algorithm = replace(algorithm, reduction=getattr(reductions, options["reduction"]))
    if options.get("counts") == "trajectories" and algorithm.reduction is reductions.token_mean:
        raise AlgorithmError(
            f"{name} takes the mean over tokens, whatever they are counted in; leave counts out, or set reduction:"
            " sequence_mean_token_mean."
        )
    return algorithm


def _rest(algorithm: Algorithm, options: Options) -> Algorithm:
    """Fields of the record that options name as they are."""
    changes = {name: options[name] for name in ("overlong_buffer", "drop_truncated", "counts") if name in options}
    if changes.get("overlong_buffer", 0) < 0:
        raise AlgorithmError(
            f"{algorithm.name}.overlong_buffer = {changes['overlong_buffer']} must not be negative; 0 switches it off."
        )
    if changes.get("overlong_buffer") and algorithm.estimator is advantages.distill:
        raise AlgorithmError(
            f"{algorithm.name} learns from no reward that overlong_buffer could lower; leave it out, or set"
            " drop_truncated: true."
        )
    return replace(algorithm, **changes)
