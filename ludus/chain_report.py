"""The report of a chain: its stages in their order, what each began with, and how right it was before and after."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from . import __version__
from .chain import Stage
from .chain_folder import ChainFolder
from .recipe import Recipe
from .report_data import EnvScores, Score
from .run_folder import STAGES
from .trainers.config import PHASES
from .whole_file import write_whole


def write_chain_report(chain: str | Path) -> Path:
    """Write report.html into the folder of a chain, from what is there so far; its path."""
    folder = ChainFolder(chain)
    package = resources.files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string((package / "chain.html.jinja").read_text(encoding="utf-8")).render(
        title=folder.chain.name,
        stages=[_row(folder, stage) for stage in folder.chain.stages],
        settings=folder.chain.text(),
        version=__version__,
        style=Markup((package / "report.css").read_text(encoding="utf-8")),
    )
    return write_whole(folder.path / "report.html", page)


def _row(folder: ChainFolder, stage: Stage) -> dict[str, Any]:
    place = folder.stage(stage)
    state = "finished" if folder.finished(stage) else "begun" if place.is_dir() else "to come"
    return {
        "name": stage.name,
        "number": stage.number,
        "origin": stage.origin,
        "state": state,
        "phases": ", ".join(phases(stage.recipe)),
        "report": f"{STAGES}/{stage.folder}/report.html" if (place / "report.html").is_file() else "",
        "scores": [_score(entry) for entry in folder.scores(stage)],
    }


def phases(recipe: Recipe) -> list[str]:
    """What a recipe does, such as `sft 100 steps` and `policy (grpo) 50 steps`."""
    found = []
    for name in PHASES:
        section = getattr(recipe, name)
        if section is not None:
            kind = getattr(section, "algorithm", getattr(section, "method", ""))
            count, unit = (section.rounds, "round") if name == "star" else (section.steps, "step")
            found.append(f"{name}{f' ({kind})' if kind else ''} {count:,} {unit}{'' if count == 1 else 's'}")
    return found


def _score(entry: EnvScores) -> dict[str, Any]:
    return {"env": entry.env, "before": _cell(entry.before), "after": _cell(entry.after)}


def _cell(score: Score | None) -> dict[str, str] | None:
    if score is None:
        return None
    return {
        "accuracy": f"{100 * score.accuracy:.1f}%",
        "interval": f"{100 * score.low:.1f} to {100 * score.high:.1f}%, {score.tasks:,} tasks",
    }
