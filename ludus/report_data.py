"""What a report says, computed from the files of a run: tiles, the before/after table, curves, episodes to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .curves import Chart, Series
from .progress import clock_time, short
from .recipe import Recipe
from .verifiers.constraint import MEASURED

Row = dict[str, Any]

STAGES = {
    "start": "before training",
    "after_sft": "after supervised start",
    "after_star": "after STaR",
    "after_preference": "after preference learning",
    "final": "after training",
}
REVERSED = ("final", "latest", "after_preference", "after_star", "after_sft", "start")
CURVES = {
    "reward": ("Training reward", "mean over the episodes of a step"),
    "entropy": ("Entropy", "nats per sampled token"),
    "kl_sampler": ("KL to the sampler", "nats per sampled token, before the step"),
    "kl_reference": ("KL to the reference", "nats per sampled token"),
    "kl_teacher": ("KL to the teacher", "nats per sampled token"),
    "kl_old": ("KL of a step", "from the policy before it to that after it, nats per sampled token"),
    "value_explained": ("Critic", "share of the spread of returns that it explains"),
    "outcome": ("Verifier outcomes", "share of the episodes of a step"),
    "groups_without_spread": ("Groups without spread", "share of groups in which all tries earned the same"),
    "length": ("Completion length", "sampled tokens per episode"),
    "grad_norm": ("Gradient norm", "before clipping"),
    "verifier": ("Parts of the verdict", "mean value over the episodes that it was given to"),
    "constraint violation": ("Constraint violation", "mean measure beyond its bound, negative within"),
    "constraint multiplier": ("Constraint multiplier", "reward per unit of the measure beyond its bound"),
}
WHOLE = {"kl_reference": "k1", "kl_sampler": "k1"}
"""What the line of a metric without a part is called beside its parts, where it is not their mean."""
COUNTS = ("undecided", "error", "not_asked")
SFT_CURVES = {"loss": ("Supervised loss", "nats per token of the demonstrations")}
PREFERENCE_CURVES = {
    "loss": ("Preference loss", "mean over the pairs of a step"),
    "accuracy": ("Preferences kept", "share of pairs whose better answer has the higher implicit reward"),
    "margin": ("Margin", "implicit reward of the better answers less that of the others"),
    "reward": ("Reward in preference rounds", "mean over the episodes of a round"),
}
STAR_CURVES = {
    "solved": ("Tasks solved", "share of the tasks of a round with a right answer, without a hint"),
    "loss": ("Loss of a round", "nats per token of the answers kept"),
}
NOT_CURVES = {"phase", "step", "seconds"}


@dataclass(frozen=True)
class Score:
    """An accuracy with its interval, as one evaluation found it. parts: of the verdict, see `agents.part_scores`."""

    accuracy: float
    low: float
    high: float
    tasks: int
    label: str
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Row, label: str) -> Score:
        """The score in a metrics row of the phase eval."""
        return cls(row["accuracy"], row["low"], row["high"], row["tasks"], label, row.get("parts") or {})


@dataclass(frozen=True)
class EnvScores:
    """The evaluations of one environment: by stage, and the baselines beside them."""

    env: str
    scores: dict[str, Score]
    baselines: dict[str, float]

    @property
    def after(self) -> Score | None:
        """The last score there is."""
        return next((self.scores[name] for name in REVERSED if name in self.scores), None)

    @property
    def before(self) -> Score | None:
        """The score at the beginning of what led to the last one; None where there is only one."""
        found = [self.scores[name] for name in REVERSED if name in self.scores and self.scores[name] is not self.after]
        return next((score for score in found if not score.label.startswith("after step")), None)


@dataclass(frozen=True)
class Tile:
    """One number that matters. before is shown in front of it, with an arrow."""

    title: str
    value: str
    note: str = ""
    before: str = ""


def env_scores(rows: Sequence[Row]) -> list[EnvScores]:
    """The table: one entry for each environment that was evaluated."""
    found: dict[str, EnvScores] = {}
    for row in rows:
        if row["phase"] != "eval" or row.get("accuracy") is None:
            continue
        entry = found.setdefault(row["env"], EnvScores(row["env"], {}, {}))
        stage = row.get("stage", "during")
        if stage in STAGES:
            entry.scores[stage] = Score.of(row, STAGES[stage])
        else:
            entry.scores["latest"] = Score.of(row, f"after step {row['step']}")
        entry.baselines.update({k: v for k, v in (row.get("baselines") or {}).items() if v is not None})
    return list(found.values())


def accuracy_chart(rows: Sequence[Row]) -> Chart | None:
    """Held-out accuracy over policy steps with its interval; None where nothing was evaluated twice."""
    series, levels = [], {}
    scores = env_scores(rows)
    for entry in scores:
        points: dict[int, Row] = {}
        for row in rows:
            # The score after the supervised start takes the place of the one before it, the final one that of its step.
            if row["phase"] == "eval" and row["env"] == entry.env and row.get("accuracy") is not None:
                points[row["step"]] = row
        steps = sorted(points)
        if len(steps) < 2:
            continue
        columns = [[points[step][name] for step in steps] for name in ("accuracy", "low", "high")]
        y, low, high = (tuple(column) for column in columns)
        series.append(Series(entry.env, tuple(map(float, steps)), y, low, high))
        for name, value in entry.baselines.items():
            levels[name if len(scores) == 1 else f"{entry.env}: {name}"] = value
    if not series:
        return None
    note = "greedy, with 95% intervals (Wilson)"
    return Chart("Held-out accuracy", tuple(series), "policy step", levels, (0.0, 1.0), True, note)


def curves(rows: Sequence[Row]) -> tuple[list[Chart], list[Chart]]:
    """(those that everyone looks at, all others): one chart for each metric of the phases."""
    first: list[Chart] = []
    others: list[Chart] = []
    for phase, known in (
        ("policy", CURVES),
        ("preference", PREFERENCE_CURVES),
        ("star", STAR_CURVES),
        ("sft", SFT_CURVES),
    ):
        of_phase = [(row["step"], _flat(row)) for row in rows if row["phase"] == phase]
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in known}
        for key in dict.fromkeys(key for _, values in of_phase for key in values):
            group, line = _place(key)
            if key.rpartition("/")[2] not in COUNTS or any(values.get(key) for _, values in of_phase):
                groups.setdefault(group, []).append((key, line))
        for name, keys in groups.items():
            whole = WHOLE.get(name, "mean") if len(keys) > 1 else name
            series = [s for key, line in keys if (s := _series(of_phase, key, line or whole))]
            if series:
                title, note = known.get(name, (name.replace("_", " "), phase))
                if len(series) == 1 and series[0].name != name:
                    note = f"{series[0].name}: {note}"
                chart = Chart(title, tuple(series), f"{phase} step", note=note)
                (first if name in known else others).append(chart)
    return first, others


def tiles(rows: Sequence[Row], recipe: Recipe | None) -> list[Tile]:
    """The numbers at the head of the page."""
    found = []
    for entry in env_scores(rows)[:4]:
        last, before = entry.after, entry.before
        if last is None:
            continue
        ends = f"{_percent(last.low)} to {_percent(last.high)}, {last.tasks:,} tasks"
        found.append(
            Tile(
                f"Held-out accuracy, {entry.env}",
                _percent(last.accuracy),
                f"{last.label}: {ends}",
                _percent(before.accuracy) if before else "",
            )
        )
    found += [_usage(row["usage"]) for row in rows if row["phase"] == "eval" and isinstance(row.get("usage"), dict)]
    policy = [row for row in rows if row["phase"] == "policy"]
    if rows:
        found.append(Tile("Duration", clock_time(rows[-1]["seconds"]), _steps_done(rows, recipe)))
    episodes = sum(row.get("episodes") or 0 for row in policy)
    if episodes:
        found.append(Tile("Training episodes", short(round(episodes)), _failures(policy)))
        tokens = sum((row.get("episodes") or 0) * (row.get("length") or 0) for row in policy)
        found.append(Tile("Sampled tokens", short(round(tokens)), _speed(policy)))
    return found


def _usage(usage: dict[str, Any]) -> Tile:
    """What an evaluation used of an endpoint."""
    prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    cost = usage.get("cost_usd")
    price = "" if cost is None else f", {cost:.4g} USD"
    note = f"{prompt:,} in, {completion:,} out, {usage.get('requests') or 0:,} requests{price}"
    return Tile("Tokens used of the endpoint", short(prompt + completion), note)


def unfinished(rows: Sequence[Row], recipe: Recipe | None) -> str:
    """Why the page is not the last word, or nothing where the run has ended."""
    last = "after_sft"
    if recipe and (recipe.policy or recipe.preference or recipe.star):
        last = "final" if recipe.policy else "after_preference" if recipe.preference else "after_star"
    if recipe is None or any(row["phase"] == "eval" and row.get("stage") in (last, "final") for row in rows):
        return ""
    return f"This run has not finished ({_steps_done(rows, recipe) or 'no step was logged'})."


def _steps_done(rows: Sequence[Row], recipe: Recipe | None) -> str:
    parts = []
    for phase in ("sft", "star", "preference", "policy"):
        section = recipe and getattr(recipe, phase)
        done = max((row["step"] for row in rows if row["phase"] == phase), default=0)
        if section and done:
            rounds = getattr(section, "rounds", None)
            parts.append(f"{done:,} of {rounds or section.steps:,} {phase} {'rounds' if rounds else 'steps'}")
    return ", ".join(parts)


def _failures(policy: Iterable[Row]) -> str:
    failed = sum(row.get("errors") or 0 for row in policy)
    return f"{failed:,.0f} lost to the infrastructure" if failed else "none lost to the infrastructure"


def _speed(policy: Sequence[Row]) -> str:
    speeds = sorted(v for row in policy if (v := row.get("rollout_tokens_per_second")) is not None)
    return f"{speeds[len(speeds) // 2]:,.0f} a second in rollouts (median)" if speeds else ""


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _flat(row: Row, prefix: str = "") -> dict[str, float]:
    """The numbers of a row; sections become `name/part`."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and (prefix or key not in NOT_CURVES):
            found[prefix + key] = value
    return found


def _place(key: str) -> tuple[str, str]:
    """(the chart that shows a metric, its line there); parts of verdicts and constraints have a chart for each kind."""
    head, _, line = key.partition("/")
    path, _, kind = line.rpartition("/")
    if head == "constraint" or (head == "verifier" and path and kind in (*COUNTS, MEASURED)):
        return f"{head} {kind}", path
    return head, line


def _series(rows: Sequence[tuple[int, dict[str, float]]], key: str, name: str) -> Series | None:
    """The line of one metric."""
    points = {step: values.get(key) for step, values in rows}
    if sum(value is not None for value in points.values()) < 2:
        return None
    steps = sorted(points)
    return Series(name, tuple(map(float, steps)), tuple(points[step] for step in steps))
