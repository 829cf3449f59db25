"""Memory plan: what a recipe will take at its fullest, beside what the machine has, before anything is loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .agents.config import ModelConfig
from .agents.decoder import check_architecture
from .agents.model import outline_model
from .recipe import Recipe
from .trainers.algorithms import Algorithm
from .trainers.memory import model_bytes, phase_bytes

SHOWN, ADVISED = 0.01, 0.1
"""Parts below these shares of the whole are not listed, and get no advice."""


@dataclass(frozen=True)
class MemoryPlan:
    """The fullest phase of a recipe: its name, and bytes by what they are for."""

    phase: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """All parts, in bytes."""
        return sum(self.parts.values())

    def line(self, limit: int | None) -> str:
        """The plan in one line. limit: bytes that the machine has, where that is known."""
        listed = ", ".join(f"{name} {_readable(size)}" for name, size in self._above(SHOWN))
        has = "" if limit is None else f"; this machine has {_readable(limit)}"
        return f"Memory: up to about {_readable(self.total)} in the phase {self.phase} ({listed}){has}."

    def warning(self, limit: int | None, recipe: Recipe) -> str | None:
        """Which settings to change where the machine has less than this; None where it has enough."""
        if limit is None or self.total <= limit:
            return None
        advice = [
            f"for {name} ({_readable(size)}) {_advice(name, self.phase, recipe)}"
            for name, size in self._above(ADVISED)
            if _advice(name, self.phase, recipe)
        ]
        return (
            f"Warning: the run may need {_readable(self.total)} of memory, and there are {_readable(limit)}: "
            f"{'; '.join(advice)}."
        )

    def _above(self, share: float) -> list[tuple[str, int]]:
        found = [(name, size) for name, size in self.parts.items() if size >= share * self.total]
        return sorted(found, key=lambda item: -item[1])


def plan_memory(
    recipe: Recipe, algorithm: Algorithm | None, device: str, newest: Callable[[str], str], *, learner: bool = True
) -> MemoryPlan:
    """The plan of a recipe's fullest phase, from the shapes of its models. No weights are loaded.

    algorithm: of the policy phase. device: cpu or cuda. newest: the model directory that a name means. learner:
    whether that of STaR is still to be loaded. UnsupportedModelError where the engine cannot run the model.
    """
    model = outline_model(recipe.model)
    if recipe.engine.kind == "torch":
        check_architecture(model.config)
    policy, needs = recipe.policy, algorithm.needs if algorithm is not None else frozenset()
    teacher = 0
    if policy is not None and policy.teacher is not None:
        teacher = model_bytes(outline_model(ModelConfig(path=newest(policy.teacher))))
    # It is loaded with the policy, and let go when STaR has written it down.
    waiting = recipe.star.learner if recipe.sft is not None and recipe.star is not None and learner else None
    learning = 0 if waiting is None else model_bytes(outline_model(ModelConfig(path=newest(waiting))))
    region = algorithm.trust_region if algorithm is not None else None
    rollout = policy.groups * policy.group_size * recipe.engine.max_length if policy and region else 0
    references = {
        "star": recipe.star is not None and recipe.star.restart,
        "preference": recipe.preference is not None
        and recipe.preference.method != "orpo"
        and recipe.preference.reference == "start",
        "policy": "reference" in needs,
    }
    plans = [
        MemoryPlan(
            phase,
            phase_bytes(
                model,
                recipe.optimizers()[phase],
                recipe.engine,
                tokens,
                gradient_checkpointing=recipe.model.gradient_checkpointing,
                reference=references.get(phase, False),
                critic=policy.critic.optimizer if phase == "policy" and policy and "values" in needs else None,
                teacher=teacher,
                learner=learning if phase == "sft" else 0,
                trust_region=rollout if phase == "policy" else 0,
                curvature_share=region.curvature_share if region else 1.0,
                cuda=device == "cuda",
            ),
        )
        for phase, tokens in _micro_batches(recipe).items()
    ]
    return max(plans, key=lambda plan: plan.total)


def _micro_batches(recipe: Recipe) -> dict[str, int]:
    """The padded tokens of a full micro-batch in each phase: no more than an optimiser step has, or one long answer."""
    longest, policy, preference = recipe.engine.max_length, recipe.policy, recipe.preference
    found: dict[str, tuple[int, int]] = {}
    if recipe.sft is not None:
        found["sft"] = recipe.sft.micro_batch_tokens, recipe.sft.batch_size
    if recipe.star is not None:
        found["star"] = recipe.star.micro_batch_tokens, recipe.star.batch_size
    if preference is not None:
        pairs = preference.groups if preference.path is None else preference.batch_size
        found["preference"] = preference.micro_batch_tokens, 2 * pairs
    if policy is not None:
        found["policy"] = policy.micro_batch_tokens, policy.groups * policy.group_size
    return {phase: min(max(tokens, longest), rows * longest) for phase, (tokens, rows) in found.items()}


def _advice(part: str, phase: str, recipe: Recipe) -> str | None:
    """What to change where a part is too large; None where nothing is left."""
    lora = "" if recipe.model.lora else "train adapters (model.lora)"
    checkpointing = "" if recipe.model.gradient_checkpointing else " or set model.gradient_checkpointing: true"
    quantise = "" if recipe.optimizers()[phase].kind != "adamw" else f"set {phase}.optimizer.kind: adamw_8bit"
    # A micro-batch has room for one long answer, whatever its tokens.
    binding = getattr(recipe, phase).micro_batch_tokens > recipe.engine.max_length
    shorter = f"lower {phase}.micro_batch_tokens" if binding else "lower engine.max_length"
    advice = {
        "weights": "choose a smaller model",
        "gradients": lora,
        "optimiser states": " or ".join(filter(None, (lora, quantise))),
        "reference": lora,
        "critic": lora,
        "teacher": "choose a smaller policy.teacher",
        "learner": "make sft and star stages of a chain",
        "trust region": "lower policy.groups or choose ppo",
        "engine's weights": "choose a smaller model",
        "engine's cache": "lower engine.slots or engine.max_length",
        "activations": f"{shorter}{checkpointing}",
        "logits": shorter,
    }
    return advice.get(part) or None


def memory_limit(device: str, root: Path = Path("/")) -> int | None:
    """Bytes of the GPU for cuda, else of this machine, or of the cgroup that this process is in where that is less."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    found = _cgroup_limits(root)
    with contextlib.suppress(OSError, ValueError):  # not on every system
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(found, default=None)


def _cgroup_limits(root: Path) -> list[int]:
    """The bounds of this process's cgroup and of those around it, of version 1 or 2."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[int] = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (mount / "memory", "memory.limit_in_bytes") if controllers else (mount, "memory.max")
        inside = top / place.strip("/")
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(top) and (folder / name).is_file():
                text = (folder / name).read_text().strip()
                found += [int(text)] if text.isdecimal() else []  # else it is "max"
    return found


def _readable(size: int) -> str:
    gib = size / 2**30
    return f"{gib:,.1f} GiB" if gib >= 1 else f"{size / 2**20:,.0f} MiB"
