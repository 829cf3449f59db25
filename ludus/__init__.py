"""Ludus: a gym in which language-model agents are evaluated and trained against rewards that can be verified.

The public names load when they are first used: `import ludus` imports neither torch nor transformers.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from .sandbox.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .agents.engine_doctor import diagnose_engine
    from .agents.evaluate import EvalResult
    from .agents.statistics import wilson_interval
    from .agents.trajectory import Episode, Step, Trajectory
    from .chain import Chain, load_training
    from .chain_folder import ChainFolder
    from .doctor import diagnose
    from .envs.registration import list_envs, make_env
    from .envs.source import HubSource, JsonlSource, ListSource, ParquetSource, ProceduralSource, TaskSource
    from .envs.task import Message, Task
    from .envs.text_env import TextEnv
    from .envs.tool import tool
    from .evaluate import evaluate_model
    from .evaluate_endpoint import evaluate_endpoint
    from .finding import Finding
    from .progress import Display
    from .recipe import Recipe, RecipeError, dump_recipe, load_recipe
    from .report import write_curve_svg, write_report
    from .run_folder import RunFolder, RunFolderError
    from .sandbox.check import check_sandbox
    from .sandbox.choose import open_sandbox
    from .sandbox.errors import LudusError
    from .train import train_recipe
    from .train_chain import train_chain
    from .verifiers.check import check_verifier
    from .verifiers.verdict import InfrastructureError, Outcome, Verdict

_HOMES = {
    "agents.engine_doctor": ("diagnose_engine",),
    "agents.evaluate": ("EvalResult",),
    "agents.statistics": ("wilson_interval",),
    "agents.trajectory": ("Episode", "Step", "Trajectory"),
    "chain": ("Chain", "load_training"),
    "chain_folder": ("ChainFolder",),
    "doctor": ("diagnose",),
    "envs.registration": ("list_envs", "make_env"),
    "envs.source": ("HubSource", "JsonlSource", "ListSource", "ParquetSource", "ProceduralSource", "TaskSource"),
    "envs.task": ("Message", "Task"),
    "envs.text_env": ("TextEnv",),
    "envs.tool": ("tool",),
    "evaluate": ("evaluate_model",),
    "evaluate_endpoint": ("evaluate_endpoint",),
    "finding": ("Finding",),
    "progress": ("Display",),
    "recipe": ("Recipe", "RecipeError", "dump_recipe", "load_recipe"),
    "report": ("write_curve_svg", "write_report"),
    "run_folder": ("RunFolder", "RunFolderError"),
    "sandbox.check": ("check_sandbox",),
    "sandbox.choose": ("open_sandbox",),
    "sandbox.errors": ("LudusError",),
    "train": ("train_recipe",),
    "train_chain": ("train_chain",),
    "verifiers.check": ("check_verifier",),
    "verifiers.verdict": ("InfrastructureError", "Outcome", "Verdict"),
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "Chain",
    "ChainFolder",
    "Display",
    "Episode",
    "EvalResult",
    "Finding",
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
    "check_sandbox",
    "check_verifier",
    "diagnose",
    "diagnose_engine",
    "dump_recipe",
    "evaluate_endpoint",
    "evaluate_model",
    "list_envs",
    "load_recipe",
    "load_training",
    "make_env",
    "open_sandbox",
    "tool",
    "train_chain",
    "train_recipe",
    "wilson_interval",
    "write_curve_svg",
    "write_report",
]

# Gymnasium does not look for plug-ins. Where it is loaded already, the environments are registered at once; else when
# `ludus.envs` is first used, so that `import ludus` stays quick.
if "gymnasium" in sys.modules:
    import_module(".envs", __name__)
