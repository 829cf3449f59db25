"""The stored episodes as the report's page holds them: compact, cut to a size that a browser opens at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .run_folder import RunFolderError, episode_labels, episodes_file, read_episodes
from .verifiers.part import NOT_ASKED


def pack_episodes(
    run: Path, *, most_episodes: int = 800, most_tokens: int = 400_000
) -> tuple[list[dict[str, Any]], int]:
    """(packed episodes of all labels, how many were left out). Every label gets the same room."""
    labels = episode_labels(run)
    packed: list[dict[str, Any]] = []
    left_out = 0
    for label in labels:
        rows = read_episodes(run, label)
        tokens = taken = 0
        for row in rows[: max(1, most_episodes // len(labels))]:
            try:
                episode = pack_episode(label, row)
            except (AttributeError, LookupError, TypeError, ValueError):
                file = episodes_file(run, label)
                raise RunFolderError(f"{file}, line {taken + 1} is not an episode; remove that file.") from None
            tokens += sum(len(trajectory["ids"]) for trajectory in episode["trajectories"])
            if taken and tokens > most_tokens // len(labels):
                break
            packed.append(episode)
            taken += 1
        left_out += len(rows) - taken
    return packed, left_out


def pack_episode(label: str, row: dict[str, Any]) -> dict[str, Any]:
    """One stored row with short names; numbers of tokens rounded to four decimals."""
    kind, _, end = label.rpartition("-")
    kind = kind.partition(".")[0]  # what follows a dot is the environment, which the row names too
    tokens = row.get("tokens") or []
    advantages = row.get("advantages") or []
    gradients = row.get("gradients") or []
    verdict = row["verdict"]
    return {
        "at": f"{kind}, step {int(end)}" if end.isdecimal() else f"{kind}, {end.replace('_', ' ')}",
        "env": row["env"],
        "task": row["task_id"],
        "group": row["group"],
        "seed": str(row["seed"]),  # may exceed what JavaScript's numbers hold
        "outcome": "error" if row["error"] else verdict["outcome"] if verdict else "no verdict",
        "reason": row["error"] or (verdict["reason"] if verdict else ""),
        "evidence": verdict["evidence"] if verdict else {},
        "parts": _pack_parts(verdict.get("parts", {})) if verdict else [],
        "reward": row["reward"],
        "rewards": row["rewards"],
        "stop": row["stop_reason"],
        "seconds": row["seconds"],
        "messages": row["messages"],
        "trajectories": [
            _pack_trajectory(trajectory, _at(tokens, i), _at(advantages, i), _at(gradients, i))
            for i, trajectory in enumerate(row["trajectories"])
        ],
    }


def page_json(value: Any) -> str:
    """value as JSON that may stand inside <script type="application/json">: no `<`, `>` or `&` survives in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _pack_parts(parts: dict[str, Any], path: str = "") -> list[dict[str, Any]]:
    """What each verifier of a rubric said, in the order of the page: a part, then the parts that it has."""
    packed: list[dict[str, Any]] = []
    for name, part in parts.items():
        unasked = part["outcome"] == "undecided" and part["reason"] == NOT_ASKED
        packed.append(
            {
                "path": f"{path}{name}",
                "name": name,
                "depth": path.count("/"),
                "outcome": NOT_ASKED if unasked else part["outcome"],
                "value": part["value"],
                "reason": "" if unasked else part["reason"],
                "evidence": part["evidence"],
            }
        )
        packed += _pack_parts(part.get("parts", {}), f"{path}{name}/")
    return packed


def _pack_trajectory(
    row: dict[str, Any],
    tokens: list[str] | None,
    advantages: list[float | None] | None,
    gradients: dict[str, list[float]] | None,
) -> Any:
    ids, mask = row["token_ids"], row["mask"]
    return {
        "ids": ids,
        "text": tokens if tokens and len(tokens) == len(ids) else [f"⟨{i}⟩" for i in ids],
        "mask": "".join("1" if sampled else "0" for sampled in mask),
        "logprobs": [_rounded(v) if sampled else 0 for v, sampled in zip(row["logprobs"], mask, strict=True)],
        "advantages": [_rounded(v) for v in advantages] if advantages and len(advantages) == len(ids) else None,
        "why": _pack_gradients(gradients or {}, mask),
        "versions": row["versions"],
        "kept": [len(k) if k else 0 for k in row["kept"]] if row.get("kept") else None,
        "steps": [[step["start"], step["end"], step["reward"]] for step in row.get("steps", [])],
        "seat": row.get("seat", 0),
        "parent": row.get("parent"),
        "fork": row.get("fork_token"),
    }


def _pack_gradients(gradients: dict[str, list[float]], mask: list[bool]) -> dict[str, list[float]]:
    """Why tokens got their gradients, without what is the same everywhere because the loss has no such term."""
    plain = {"ratio": 1.0, "correction": 1.0, "clip": 0.0, "kl": 0.0, "whole": 0.0}
    return {
        name: [float(f"{value:.4g}") for value in values]
        for name, values in gradients.items()
        if len(values) == len(mask)
        and any(sampled and value != plain.get(name) for value, sampled in zip(values, mask, strict=True))
    }


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
