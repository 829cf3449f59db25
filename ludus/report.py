"""report.html: a whole run on one page that needs nothing but a browser.

Invariant: what a model wrote is text in the page and never markup or script (tests/test_report_page.py).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from . import __version__
from .curves import Chart, draw, standalone_svg
from .doctor import diagnose
from .recipe import Recipe, RecipeError
from .report_data import STAGES, EnvScores, accuracy_chart, curves, env_scores, tiles, unfinished
from .report_episodes import pack_episodes, page_json
from .run_folder import RunFolder, RunFolderError, read_metrics
from .whole_file import write_whole
from .yaml_core import YamlError, parse

SMALL, WIDE, NARROW = (420.0, 220.0), (1180.0, 330.0), (460.0, 300.0)


def write_report(run: str | Path) -> Path:
    """Write report.html into the folder of a run or of an evaluation, from what is there so far; its path.

    Raises RunFolderError where the folder is no run or one of its files is damaged.
    """
    folder = RunFolder(run)
    rows = read_metrics(folder.path)
    episodes, left_out = pack_episodes(folder.path)
    recipe = _recipe(folder)
    settings, named = _settings(folder.settings)
    environment = folder.environment
    hero = accuracy_chart(rows)
    first, others = curves(rows)
    scores = env_scores(rows)
    stages = [name for name in (*STAGES, "latest") if any(name in entry.scores for entry in scores)]
    if "final" in stages and "latest" in stages:
        stages.remove("latest")
    script = _text("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _template().render(
        title=recipe.name if recipe else _title(named),
        subtitle=_subtitle(folder.path, recipe, environment),
        unfinished=unfinished(rows, recipe),
        tiles=tiles(rows, recipe),
        findings=diagnose(rows),
        hero=_hero(hero) if hero else None,
        scores=[_table_row(entry, stages) for entry in scores],
        parts=_part_rows(scores, stages),
        stages=[{"key": name, "label": STAGES.get(name, "latest")} for name in stages],
        curves=[_small(chart, f"curve-{i}") for i, chart in enumerate(first)],
        others=[_small(chart, f"other-{i}") for i, chart in enumerate(others)],
        episode_count=len(episodes),
        left_out=left_out,
        settings=settings,
        settings_title="Recipe, with every default filled in" if recipe else "Settings",
        environment=json.dumps(environment, indent=2) if environment else "",
        version=__version__,
        data=Markup(page_json(episodes)),
        style=Markup(_text("report.css")),
        script=Markup(script),
        script_hash=f"'sha256-{digest}'",
    )
    return write_whole(folder.path / "report.html", page)


def write_curve_svg(run: str | Path, path: str | Path) -> Path:
    """Write the held-out accuracy of a run as an SVG picture of its own, dark on white; its path.

    Raises RunFolderError where the run holds fewer than two evaluations.
    """
    folder = RunFolder(run)
    chart = accuracy_chart(read_metrics(folder.path))
    if chart is None:
        raise RunFolderError(f"{run} holds fewer than two evaluations; a curve needs two: let the run go on.")
    return write_whole(Path(path), standalone_svg(chart))


def _hero(chart: Chart) -> dict[str, Any]:
    return {
        "title": chart.title,
        "note": chart.note,
        "names": _names(chart),
        "wide": Markup(draw(chart, *WIDE, "accuracy-wide")),
        "narrow": Markup(draw(chart, *NARROW, "accuracy-narrow")),
    }


def _small(chart: Chart, key: str) -> dict[str, Any]:
    svg = Markup(draw(chart, *SMALL, key))
    return {"title": chart.title, "note": chart.note, "names": _names(chart), "svg": svg}


def _names(chart: Chart) -> list[str]:
    return [series.name for series in chart.series] if len(chart.series) > 1 else []


def _table_row(entry: EnvScores, stages: Sequence[str]) -> dict[str, Any]:
    cells = []
    for stage in stages:
        score = entry.scores.get(stage)
        cells.append(
            score
            and {
                "accuracy": f"{100 * score.accuracy:.1f}%",
                "interval": f"{100 * score.low:.1f} to {100 * score.high:.1f}%",
                "tasks": f"{score.tasks:,}",
                "label": score.label if stage == "latest" else "",
            }
        )
    before, after = entry.before, entry.after
    return {
        "env": entry.env,
        "cells": cells,
        "gain": f"{100 * (after.accuracy - before.accuracy):+.1f} points" if before and after else "",
        "baselines": [(name, f"{100 * value:.1f}%") for name, value in entry.baselines.items()],
        "bar": Markup(_interval_bar(entry, stages)),
    }


def _part_rows(scores: Sequence[EnvScores], stages: Sequence[str]) -> list[dict[str, Any]]:
    """The table of what the parts of the verdicts were on held-out tasks; empty where no verdict has parts."""
    rows = []
    for entry in scores:
        shown = [entry.scores[stage].parts if stage in entry.scores else {} for stage in stages]
        for path in dict.fromkeys(path for parts in shown for path in parts):
            cells = [_part_cell(parts[path]) if path in parts else None for parts in shown]
            rows.append({"env": entry.env, "name": path.rpartition("/")[2], "depth": path.count("/"), "cells": cells})
    return rows


def _part_cell(score: dict[str, Any]) -> dict[str, str]:
    mean, low = score["mean"], score["low"]
    counts = (("undecided", "undecided"), ("errors", "lost to errors"), ("not_asked", "not asked"))
    notes = [f"{score[key]:,} {word}" for key, word in counts if score[key]]
    if low is not None:
        notes.insert(0, f"{100 * low:.1f} to {100 * score['high']:.1f}%")
    value = "–" if mean is None else f"{mean:.4g}" if low is None else f"{100 * mean:.1f}%"
    return {"value": value, "note": ", ".join(notes)}


def _interval_bar(entry: EnvScores, stages: Sequence[str], width: float = 200) -> str:
    """The scores of one environment on a line from 0 to 1."""

    def x(value: float) -> float:
        return round(6 + value * (width - 12), 2)

    shown = [stage for stage in stages if stage in entry.scores]
    height = 12 * len(shown) + 10
    parts = [f'<svg class="bar" viewBox="0 0 {width:g} {height}" role="img" aria-label="{escape(entry.env, True)}">']
    for i, stage in enumerate(shown):
        score, y = entry.scores[stage], 11 + 12 * i
        parts.append(f'<line class="track" x1="{x(0)}" x2="{x(1)}" y1="{y}" y2="{y}"/>')
        ends = f'x1="{x(score.low)}" x2="{x(score.high)}" y1="{y}" y2="{y}"'
        parts.append(f'<line class="interval stage-{stage}" {ends}/>')
        parts.append(f'<circle class="stage-{stage}" cx="{x(score.accuracy)}" cy="{y}" r="3.5"/>')
    for value in entry.baselines.values():
        parts.append(f'<line class="tick" x1="{x(value)}" x2="{x(value)}" y1="2" y2="{height - 2}"/>')
    return "".join([*parts, "</svg>"])


def _recipe(folder: RunFolder) -> Recipe | None:
    """The recipe; None for an evaluation, and for a run of another version of Ludus whose recipe no longer loads."""
    try:
        return folder.recipe if folder.settings.name == "recipe.yaml" else None
    except RecipeError:
        return None


def _settings(file: Path) -> tuple[str, dict[str, Any]]:
    """The text of recipe.yaml or evaluation.yaml, and what it stands for."""
    try:
        text = file.read_text(encoding="utf-8")
        found = parse(text)
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{file} is not UTF-8 text (byte {error.start}); restore it.") from None
    except YamlError as error:
        raise RunFolderError(f"{file}: {error}; correct the YAML.") from None
    if not isinstance(found, dict):
        raise RunFolderError(f"{file} is no section of `key: value` lines; restore it.")
    return text, found


def _title(settings: dict[str, Any]) -> str:
    return str(settings.get("name") or f"{settings.get('env')}: {settings.get('model')}")


def _subtitle(path: Path, recipe: Recipe | None, environment: dict[str, Any]) -> str:
    parts = [f"run {path.resolve().name}"]
    if recipe and recipe.policy:
        parts.append(f"{recipe.policy.algorithm}, seed {recipe.seed}")
    elif recipe:
        parts.append(f"supervised, seed {recipe.seed}")
    cores = [f"{environment['cpu_count']} CPU cores"] if "cpu_count" in environment else []
    parts += environment.get("gpus") or cores
    return " · ".join(parts)


def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_text("report.html.jinja"))


def _text(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
