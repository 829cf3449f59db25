"""What can be wrong with the policy: numbers, divergences, entropy, length, and the size of its steps.

Each check takes a run and returns what it found, or None.
"""

from __future__ import annotations

from math import inf
from statistics import fmean, median

from .finding import Finding, Severity
from .trend import DEVIATIONS, Trend, window
from .watched_run import RECENT_LEAST, WatchedRun, is_number, newest

TRAINED = ("sft", "star", "preference", "policy")
KL_REFERENCE = 0.5
"""Nats a token at which the policy finds its tokens 1.6 times as likely as the reference does. Usual: 0.01 to 0.3."""
KL_GROWTH = 1.2
"""How much the last window exceeds the one in the middle of the run where the divergence still grows."""
KL_SAMPLER = 0.01
"""Nats a token (k3). The same arithmetic gives 1e-8, bfloat16 against float32 about 1e-3."""
ENTROPY_SHARE = 0.1
"""Share of the entropy at the start below which it has collapsed. Runs that solve their task keep more than that."""
ENTROPY_LOW = 0.1
"""Nats a token above which there is still a choice (a perplexity of 1.1), however high the entropy began."""
ENTROPY_GROWTH = 3.0
ENTROPY_RISE = 0.5
"""Entropy explodes by this factor and by so many nats: what begins near 0 may triple and mean nothing."""
LENGTH_GROWTH = 2.0
"""Factor in length that has to come with more reward."""
TRUNCATED = 0.2
"""Share of episodes cut for their length, and not fewer than at the start, that bend what is learnt."""
CLIPPED = 0.3
"""Share of clipped tokens; usual are 0 to 0.2."""
RATIO = 3.0
"""Factor by which one token in a hundred changes its probability within one rollout's steps; usual are 1 to 1.5."""
SPIKE = 10.0
SPIKES = 5
SPIKE_STEPS = 100
"""Gradient norms of SPIKE times the median of the steps before, so many in so many steps. A few are clipped, and
healthy runs have them, above all where few groups have spread."""


def non_finite(run: WatchedRun) -> Finding | None:
    """A curve of a step is NaN or infinite."""
    for row in run.rows:
        names = [n for n, v in row.items() if v is None or (isinstance(v, float) and not is_number(v))]
        if row["phase"] in TRAINED and names:
            return Finding(
                "non_finite",
                f"{', '.join(names)} was not a finite number at {row['phase']} step {row['step']}.",
                f"Lower {row['phase']}.optimizer.lr and {row['phase']}.optimizer.max_grad_norm; if it is the reward, "
                "no episode was judged: see to the errors of the verifier.",
                row["step"],
                Severity.SERIOUS,
            )
    return None


def kl_reference_grows(run: WatchedRun) -> Finding | None:
    """The policy moves further and further away from the reference."""
    points = run.points("kl_reference")
    trend = Trend.of(points)
    if trend is None or trend.last < KL_REFERENCE:
        return None
    size = window(len(points))
    middle = fmean(value for _, value in points[len(points) // 2 - size // 2 :][:size])
    if trend.last < KL_GROWTH * middle:
        return None
    return Finding(
        "kl_reference_grows",
        f"The KL divergence from the reference grows: {trend.first:.3g} nats a token at first, {trend.last:.3g} now.",
        "Raise policy.options.kl_coef or lower policy.optimizer.lr.",
        trend.last_step,
        Severity.WARNING,
    )


def kl_sampler_large(run: WatchedRun) -> Finding | None:
    """Engine and trainer give the same tokens different probabilities."""
    name = "kl_sampler/k3" if run.points("kl_sampler/k3") else "kl_sampler"
    points = run.points(name)
    if len(points) < RECENT_LEAST:
        return None
    found = median(abs(value) for _, value in newest(points))
    if found < KL_SAMPLER:
        return None
    stale = run.recent("staleness")
    remedy = (
        "See to it that both have the same weights and compute with the same precision; a few steps with device: cpu "
        "tell whether it is the precision."
    )
    if stale is not None and stale[1] > 0:
        remedy = "Raise policy.partial_tokens, or lower policy.max_staleness or policy.optimizer.lr."
    return Finding(
        "kl_sampler_large",
        f"Engine and trainer differ by {found:.2g} nats a token: the policy learns from what it would not have said.",
        remedy,
        points[-1][0],
        Severity.SERIOUS,
    )


def entropy_collapses(run: WatchedRun) -> Finding | None:
    """The policy says nearly always the same, and not all of it is right."""
    trend = run.trend("entropy")
    if trend is None or run.solved() or trend.last > min(ENTROPY_LOW, ENTROPY_SHARE * trend.start):
        return None
    right = run.right()
    beside = "" if right is None else f", with {right:.0%} of the answers right"
    return Finding(
        "entropy_collapses",
        f"The entropy fell from {trend.start:.3g} to {trend.last:.3g} nats a token{beside}: nothing new is tried.",
        "Lower policy.optimizer.lr, raise policy.options.clip_high or policy.options.kl_coef where the algorithm has "
        "it, or raise sampling.temperature.",
        trend.last_step,
        Severity.SERIOUS,
    )


def entropy_explodes(run: WatchedRun) -> Finding | None:
    """The policy says more and more at random."""
    trend = run.trend("entropy")
    if trend is None or trend.last < max(ENTROPY_GROWTH * trend.start, trend.start + ENTROPY_RISE):
        return None
    return Finding(
        "entropy_explodes",
        f"The entropy rose from {trend.start:.3g} to {trend.last:.3g} nats a token: the policy speaks at random.",
        "Lower policy.optimizer.lr, raise policy.options.kl_coef where the algorithm has it, or lower "
        "sampling.temperature.",
        trend.last_step,
        Severity.SERIOUS,
    )


def length_explodes(run: WatchedRun) -> Finding | None:
    """Answers grow and earn no more for it."""
    trend, reward = run.trend("length"), run.trend("reward")
    if trend is None or reward is None or trend.last < LENGTH_GROWTH * trend.start:
        return None
    if trend.last - trend.start < DEVIATIONS * trend.error or reward.last - reward.first > 2 * reward.error:
        return None
    return Finding(
        "length_explodes",
        f"Episodes grew from {trend.start:.0f} to {trend.last:.0f} sampled tokens, and the reward did not: "
        f"{reward.first:.3g} at the start, {reward.last:.3g} now.",
        "Take policy.algorithm dr_grpo or dapo, whose losses do not favour length, set policy.options.overlong_buffer "
        "(dapo) or sampling.stop_on_loop, or lower sampling.max_tokens.",
        trend.last_step,
        Severity.WARNING,
    )


def answers_truncated(run: WatchedRun) -> Finding | None:
    """Many episodes are cut, and not fewer than at the start."""
    name = "truncated/length" if run.points("truncated/length") else "truncated"
    trend = run.trend(name)
    if trend is None or trend.last < TRUNCATED or trend.last < trend.start - 2 * trend.error:
        return None
    return Finding(
        "answers_truncated",
        f"{trend.last:.0%} of the episodes were cut before their answer ({trend.start:.0%} at the start).",
        "Raise sampling.max_tokens and engine.max_length, or teach shorter answers (policy.options.overlong_buffer of "
        "dapo); sampling.stop_on_loop ends those that go round in circles.",
        trend.last_step,
        Severity.WARNING,
    )


def much_clipped(run: WatchedRun) -> Finding | None:
    """Much of the gradient is cut off by the clip."""
    recent = run.recent("clip_fraction")
    if recent is None or recent[1] < CLIPPED:
        return None
    return Finding(
        "much_clipped",
        f"{recent[1]:.0%} of the tokens are at the bounds of the clip: the steps are too large for them.",
        "Lower policy.optimizer.lr, policy.epochs or policy.minibatches, or widen policy.options.clip_low and "
        "policy.options.clip_high.",
        recent[0],
        Severity.WARNING,
    )


def ratio_extreme(run: WatchedRun) -> Finding | None:
    """Some tokens change their probability by a lot within the steps of one rollout."""
    low, high = run.recent("ratio/p1"), run.recent("ratio/p99")
    if low is None or high is None or max(high[1], 1 / low[1] if low[1] > 0 else inf) < RATIO:
        return None
    return Finding(
        "ratio_extreme",
        f"Within the steps of one rollout one token in a hundred becomes {high[1]:.3g} times as likely or more, or "
        f"{low[1]:.3g} times or less.",
        "Lower policy.optimizer.lr, or take fewer policy.epochs and policy.minibatches.",
        high[0],
        Severity.WARNING,
    )


def gradient_spikes(run: WatchedRun) -> Finding | None:
    """The gradient norm jumps again and again."""
    points = [(step, value) for step, value in run.points("grad_norm") if value > 0]
    spikes = []
    for i in range(max(10, len(points) - SPIKE_STEPS), len(points)):
        usual = median(value for _, value in points[max(0, i - 20) : i])
        if points[i][1] >= SPIKE * usual:
            spikes.append((points[i][1], usual))
    if len(spikes) < SPIKES:
        return None
    value, usual = max(spikes)
    return Finding(
        "gradient_spikes",
        f"The gradient norm jumped {len(spikes)} times in the last {SPIKE_STEPS} steps, up to {value:.3g} where "
        f"{usual:.3g} is usual.",
        "Lower policy.optimizer.max_grad_norm to little above what is usual, lower policy.optimizer.lr, or raise "
        "policy.optimizer.warmup_steps and policy.groups.",
        points[-1][0],
        Severity.WARNING,
    )
