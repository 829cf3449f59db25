"""What can be wrong with the reward: that it teaches nothing, does not last, or is not what is wanted.

Each check takes a run and returns what it found, or None.
"""

from __future__ import annotations

from itertools import takewhile
from math import sqrt
from statistics import fmean

from .finding import Finding, Severity
from .trend import DEVIATIONS, alternation, slow_turns, window
from .watched_run import RECENT_LEAST, Row, WatchedRun, is_number, newest

SWING = 0.25
"""Share of the highest reward by which it must swing or fall to count: what a reader would call a lot."""
SWINGS = 3
"""Turns that make an oscillation: up, down, up, down. A single dip has two."""
SWING_STEPS = 200
"""Newest steps in which swings count; what has settled since is past."""
ALTERNATION = -0.6
ALTERNATION_STEPS = 40
"""Autocorrelation that noise practically never has over so many steps (its standard error there is 0.16)."""
CONSTANT_STEPS = 10
"""Steps with exactly the same reward that are no accident."""
FLAT_STEPS = 100
"""Steps after which a reward that has stayed within two standard errors is called flat; slow starts need some."""
HELD_OUT_Z = 3.5
"""Standard errors between the best and the last held-out accuracy. Two would do for one comparison; the best of twenty
evaluations is itself lucky."""
WITHOUT_SPREAD = 0.85
"""Share of groups without spread; what the rest teaches costs seven times what it should."""
ERRORS = 0.05
"""Share of episodes lost to the infrastructure; a sound one loses none, or one now and then."""
UNDECIDED = 0.1
"""Share of undecided verdicts, which train as 0 whether the answer was right or not."""


def reward_constant(run: WatchedRun) -> Finding | None:
    """The newest steps all had exactly the same reward."""
    points = run.points("reward")
    same = len(list(takewhile(lambda point: point[1] == points[-1][1], reversed(points))))
    if same < CONSTANT_STEPS or run.solved():
        return None
    best, last = max(value for _, value in points), points[-1][1]
    died = f" It was {best:.3g} before: take an earlier checkpoint and a lower policy.optimizer.lr." * (best > last)
    return Finding(
        "reward_constant",
        f"The reward was exactly {last:.3g} in each of the last {same} steps: nothing can be learnt from it.",
        "Read stored episodes; give easier tasks (envs.options), a supervised start (sft.steps) or more tries at each "
        f"task (policy.group_size).{died}",
        points[-1][0],
        Severity.SERIOUS,
    )


def reward_flat(run: WatchedRun) -> Finding | None:
    """The reward moved, but neither up nor down beyond its noise."""
    trend = None if run.points("curriculum/kinds") else run.trend("reward")  # a curriculum holds it where it is
    if trend is None or trend.steps < FLAT_STEPS or run.solved() or trend.error == 0 or reward_oscillates(run):
        return None
    if max(abs(trend.last - trend.first), trend.best - trend.first - trend.error) > 2 * trend.error:
        return None
    return Finding(
        "reward_flat",
        f"The reward has not moved beyond its noise in {trend.steps} steps: {trend.first:.3g} at the start, "
        f"{trend.last:.3g} now, give or take {trend.error:.2g}.",
        "Raise policy.optimizer.lr or policy.groups and policy.group_size; if most groups are without spread, choose "
        "tasks nearer to what the policy can do (envs.options).",
        trend.last_step,
        Severity.WARNING,
    )


def reward_oscillates(run: WatchedRun) -> Finding | None:
    """The reward swings up and down, slowly or from step to step, by more than its noise."""
    points = run.points("reward")[-SWING_STEPS:]
    values = [value for _, value in points]
    if len(values) < ALTERNATION_STEPS:
        return None
    least = SWING * max(map(abs, values))
    count = slow_turns(values, least)
    rest = values[-ALTERNATION_STEPS:]
    quick = max(rest) - min(rest) >= least and alternation(rest) <= ALTERNATION
    if count < SWINGS and not quick:
        return None
    how = "from step to step" if quick else f"and turned round {count} times"
    return Finding(
        "reward_oscillates",
        f"The reward went up and down {how}, between {min(values):.3g} and {max(values):.3g}.",
        "Lower policy.optimizer.lr, raise policy.groups for a steadier gradient, and take fewer policy.epochs and "
        "policy.minibatches.",
        points[-1][0],
        Severity.SERIOUS,
    )


def reward_falls(run: WatchedRun) -> Finding | None:
    """The reward is far below the best it was."""
    trend = None if run.points("curriculum/kinds") else run.trend("reward")  # harder tasks pay less
    fall = 0.0 if trend is None else trend.best - trend.last
    if trend is None or fall <= 0 or fall < max(SWING * abs(trend.best), DEVIATIONS * trend.error):
        return None
    if reward_oscillates(run):
        return None
    return Finding(
        "reward_falls",
        f"The reward fell from {trend.best:.3g} at its best to {trend.last:.3g}.",
        "Start again from a checkpoint before the fall with a lower policy.optimizer.lr; raise policy.options.kl_coef "
        "where the algorithm has it. With policy.shuffle_rewards it is what to expect.",
        trend.last_step,
        Severity.SERIOUS,
    )


def held_out_falls(run: WatchedRun) -> Finding | None:
    """The reward rises and the held-out accuracy falls: the policy learns something else than the task."""
    worst: tuple[float, str, tuple[int, Row], tuple[int, Row]] | None = None
    for env, points in run.held_out().items():
        best, last = max(points, key=lambda point: point[1]["accuracy"]), points[-1]
        z = _z(best[1], last[1])
        if z >= HELD_OUT_Z and (worst is None or z > worst[0]):
            worst = (z, env, best, last)
    if worst is None:
        return None
    _, env, (then, best_row), (now, last_row) = worst
    points_of = run.points(f"reward/{env}") or run.points("reward")
    size = window(len(points_of))
    earlier = ([value for step, value in points_of if step <= then] or [value for _, value in points_of][:size])[-size:]
    later = [value for step, value in points_of if step <= now][-size:]
    if not earlier or not later or fmean(later) < fmean(earlier):
        return None
    return Finding(
        "held_out_falls",
        f"The held-out accuracy in {env} fell from {best_row['accuracy']:.3f} at step {then} to "
        f"{last_row['accuracy']:.3f}, while the reward went from {fmean(earlier):.3g} to {fmean(later):.3g}: the "
        "policy learns to please the verifier of the training tasks.",
        "Read the best-paid episodes for a trick and close it in the verifier (`ludus check`); take the checkpoint of "
        f"step {then}, give more tasks (envs) and raise policy.options.kl_coef where the algorithm has it.",
        now,
        Severity.SERIOUS,
    )


def groups_without_spread(run: WatchedRun) -> Finding | None:
    """Nearly all groups earn the same in all tries, and teach nothing."""
    trend = run.trend("groups_without_spread")
    if trend is None or trend.last < WITHOUT_SPREAD or run.solved():
        return None
    right = run.right()
    cure = "easier" if right is not None and right < 0.5 else "harder" if right is not None else "other"
    return Finding(
        "groups_without_spread",
        f"In {trend.last:.0%} of the groups all tries earned the same, so they teach nothing.",
        f"Give {cure} tasks (envs.options), raise policy.group_size or sampling.temperature, or take policy.algorithm "
        "dapo, which plays others in their place (policy.options.dynamic_sampling).",
        trend.last_step,
        Severity.WARNING,
    )


def many_errors(run: WatchedRun) -> Finding | None:
    """Many episodes are lost to the infrastructure."""
    share = _share(run, "errors")
    if share is None or share[1] < ERRORS:
        return None
    return Finding(
        "many_errors",
        f"{share[1]:.0%} of the episodes were lost to errors of the infrastructure; they are in no loss.",
        "Read the errors in the stored episodes; see to the sandbox, the judge or the environment, and try it with "
        "`ludus check`; lower policy.concurrency where it is overloaded.",
        share[0],
        Severity.SERIOUS,
    )


def many_undecided(run: WatchedRun) -> Finding | None:
    """The verifier often cannot tell."""
    share = _share(run, "undecided")
    if share is None or share[1] < UNDECIDED:
        return None
    return Finding(
        "many_undecided",
        f"The verifier could not judge {share[1]:.0%} of the episodes; they train as 0, right or wrong.",
        "Read such episodes; ask for a form of answer that the verifier reads (the environment's system_prompt in "
        "envs.options), or give the verifier more time.",
        share[0],
        Severity.WARNING,
    )


def _share(run: WatchedRun, name: str) -> tuple[int, float] | None:
    """The last step and the share of the last window's episodes that a count of episodes makes up."""
    rows = [row for row in run.policy if is_number(row.get(name)) and is_number(row.get("episodes"))]
    if len(rows) < RECENT_LEAST:
        return None
    last = newest(rows)
    return last[-1]["step"], sum(row[name] for row in last) / max(sum(row["episodes"] for row in last), 1)


def _z(before: Row, after: Row) -> float:
    """Standard errors by which the accuracy fell from one evaluation to another."""
    counts = before["tasks"], after["tasks"]
    pooled = (before["accuracy"] * counts[0] + after["accuracy"] * counts[1]) / sum(counts)
    error = sqrt(pooled * (1 - pooled) * (1 / counts[0] + 1 / counts[1]))
    return (before["accuracy"] - after["accuracy"]) / error if error > 0 else 0.0
