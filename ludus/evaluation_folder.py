"""An evaluation kept on disk: its numbers, its episodes, and a report to read them in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .report import write_report
from .run_folder import RunFolder, plain
from .whole_file import write_whole

if TYPE_CHECKING:
    from .agents.evaluate import EvalResult
    from .agents.trajectory import Episode

LOGGED = ("env", "accuracy", "low", "high", "tasks", "baselines", "mean_reward", "parts")


def write_evaluation(out: str | Path, settings: dict[str, Any], result: EvalResult) -> Path:
    """Write a result into the new folder `out`: result.json, the episodes, report.html; the path of the report.

    settings: how it was made, with "env" and "model" among them, and never a key. Raises RunFolderError where `out`
    holds something.
    """
    with RunFolder.create_for_evaluation(settings, out) as run:
        numbers = {name: value for name, value in asdict(result).items() if name != "episodes"}
        write_whole(run.path / "result.json", json.dumps(plain(numbers), indent=2) + "\n")
        used = {"usage": numbers["usage"]} if result.usage is not None else {}
        run.log("eval", 0, stage="final", **{name: numbers[name] for name in LOGGED}, **used)
        run.write_episodes("eval-final", _rows(result.episodes, str(settings["model"])))
        return write_report(run.path)


def _rows(episodes: Sequence[Episode], model: str) -> list[dict[str, Any]]:
    if not any(episode.trajectories for episode in episodes):  # a chat endpoint played them
        return [{**episode.to_json(), "tokens": None, "advantages": None} for episode in episodes]

    from .agents.model import load_tokenizer
    from .newest_model import newest_model

    tokenizer = load_tokenizer(newest_model(model))
    return [
        {
            **episode.to_json(),
            "tokens": [[tokenizer.decode([i]) for i in trajectory.token_ids] for trajectory in episode.trajectories],
            "advantages": None,
        }
        for episode in episodes
    ]
