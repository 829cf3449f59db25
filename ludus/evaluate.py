"""evaluate_model: a saved model against one environment. examine_engine: an engine against the trainer."""

from __future__ import annotations

from typing import Any

from .agents.config import EngineConfig, ModelConfig
from .agents.engine import LOWEST_TEMPERATURE, EngineError, Sampling, too_cold
from .agents.engine_doctor import EngineReport, diagnose_engine
from .agents.engines import build_engine
from .agents.evaluate import EvalResult, evaluate
from .agents.model import prepare_model
from .agents.rollout import Arena, Rollout
from .envs.registration import make_env
from .evaluation_common import counter, with_split
from .trainers.recorder import Show


def evaluate_model(
    env: str,
    model: str,
    *,
    tasks: int = 200,
    split: str = "test",
    seed: int = 0,
    options: dict[str, Any] | None = None,
    temperature: float = 0.0,
    max_tokens: int = 256,
    max_length: int = 2048,
    slots: int = 64,
    device: str = "auto",
    engine: str = "torch",
    display: Show | None = None,
) -> EvalResult:
    """Play `tasks` tasks of an environment once each and return accuracy with its 95% interval, and the episodes.

    model: a model directory, a run folder (its newest checkpoint is taken) or a hub name. temperature 0 is greedy.
    max_length: of an episode in tokens; the model's own longest length, where that is less. engine: torch or vllm.
    """
    from .newest_model import newest_model

    _check_engine(engine)
    if 0 < temperature < LOWEST_TEMPERATURE:
        raise EngineError(too_cold(temperature))

    settings = with_split(env, options, split)
    make_env(env, **settings).close()
    network, tokenizer = prepare_model(ModelConfig(path=newest_model(model)), seed, device)
    longest = getattr(network.config, "max_position_embeddings", None) or max_length
    config = EngineConfig.model_validate({"kind": engine, "slots": slots, "max_length": min(max_length, longest)})
    arena = Arena.build(env, lambda: make_env(env, **settings), tokenizer)
    with (
        build_engine(config, network, tokenizer, None if display is None else display.note) as served,
        Rollout(served, {env: arena}, concurrency=slots) as rollout,
    ):
        count = counter(display, env, arena, tasks)
        sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
        return evaluate(rollout, env, tasks=tasks, sampling=sampling, seed=seed, on_episode=count)


def examine_engine(kind: str, model: str, *, device: str = "auto", seed: int = 0) -> EngineReport:
    """Why an engine's log-probabilities differ from the trainer's, on a model directory or a run's newest checkpoint.

    kind: torch or vllm. See `ludus.agents.engine_doctor`.
    """
    from .newest_model import newest_model

    _check_engine(kind)
    network, tokenizer = prepare_model(ModelConfig(path=newest_model(model)), seed, device)
    longest = getattr(network.config, "max_position_embeddings", None) or 512
    config = EngineConfig.model_validate({"kind": kind, "slots": 16, "max_length": min(512, longest)})
    with build_engine(config, network, tokenizer) as engine:
        return diagnose_engine(engine, network, tokenizer, seed=seed)


def _check_engine(kind: str) -> None:
    if kind not in ("torch", "vllm"):
        raise EngineError(f"The engine {kind} is unknown; choose torch or vllm.")
