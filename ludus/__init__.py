"""Ludus: a gym in which language-model agents are evaluated and trained against rewards that can be verified.

The public names load when they are first used: `import ludus` imports neither torch nor transformers.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .agents.evaluate import EvalResult
    from .agents.statistics import wilson_interval
    from .agents.trajectory import Episode, Step, Trajectory
    from .envs.registration import list_envs, make_env
    from .envs.source import HubSource, JsonlSource, ListSource, ParquetSource, ProceduralSource, TaskSource
    from .envs.task import Message, Task
    from .envs.text_env import TextEnv
    from .envs.tool import tool
    from .evaluate import evaluate_model
    from .progress import Display
    from .recipe import Recipe, RecipeError, dump_recipe, load_recipe
    from .report import write_curve_svg, write_report
    from .run_folder import RunFolder, RunFolderError
    from .sandbox.errors import LudusError
    from .train import train_recipe
    from .verifiers.check import check_verifier
    from .verifiers.verdict import InfrastructureError, Outcome, Verdict

_HOMES = {
    "agents.evaluate": ("EvalResult",),
    "agents.statistics": ("wilson_interval",),
    "agents.trajectory": ("Episode", "Step", "Trajectory"),
    "envs.registration": ("list_envs", "make_env"),
    "envs.source": ("HubSource", "JsonlSource", "ListSource", "ParquetSource", "ProceduralSource", "TaskSource"),
    "envs.task": ("Message", "Task"),
    "envs.text_env": ("TextEnv",),
    "envs.tool": ("tool",),
    "evaluate": ("evaluate_model",),
    "progress": ("Display",),
    "recipe": ("Recipe", "RecipeError", "dump_recipe", "load_recipe"),
    "report": ("write_curve_svg", "write_report"),
    "run_folder": ("RunFolder", "RunFolderError"),
    "sandbox.errors": ("LudusError",),
    "train": ("train_recipe",),
    "verifiers.check": ("check_verifier",),
    "verifiers.verdict": ("InfrastructureError", "Outcome", "Verdict"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Display",
    "Episode",
    "EvalResult",
    "HubSource",
    "InfrastructureError",
    "JsonlSource",
    "ListSource",
    "LudusError",
    "Message",
    "Outcome",
    "ParquetSource",
    "ProceduralSource",
    "Recipe",
    "RecipeError",
    "RunFolder",
    "RunFolderError",
    "Step",
    "Task",
    "TaskSource",
    "TextEnv",
    "Trajectory",
    "Verdict",
    "__version__",
    "check_verifier",
    "dump_recipe",
    "evaluate_model",
    "list_envs",
    "load_recipe",
    "make_env",
    "tool",
    "train_recipe",
    "wilson_interval",
    "write_curve_svg",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ludus' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Gymnasium does not look for plug-ins. Where it is loaded already, the environments are registered at once; else when
# `ludus.envs` is first used, so that `import ludus` stays quick.
if "gymnasium" in sys.modules:
    import_module(".envs", __name__)
