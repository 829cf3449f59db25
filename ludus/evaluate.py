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
from .agents.torch_engine import TorchEngine
from .envs.registration import make_env, takes_option
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
    display: Show | None = None,
) -> EvalResult:
    """Play `tasks` tasks of an environment once each and return accuracy with its 95% interval, and the episodes.

    model: a model directory, a run folder (its newest checkpoint is taken) or a hub name. temperature 0 is greedy.
    max_length: of an episode in tokens; the model's own longest length, where that is less.
    """
    from .train import newest_model

    if 0 < temperature < LOWEST_TEMPERATURE:
        raise EngineError(too_cold(temperature))

    settings = dict(options or {})
    if takes_option(env, "split"):
        settings.setdefault("split", split)
    make_env(env, **settings).close()
    network, tokenizer = prepare_model(ModelConfig(path=newest_model(model)), seed, device)
    longest = getattr(network.config, "max_position_embeddings", None) or max_length
    engine = TorchEngine(network, tokenizer, slots=slots, max_length=min(max_length, longest))
    arena = Arena.build(env, lambda: make_env(env, **settings), tokenizer)
    if display is not None:
        size = arena.size
        display.phase(f"evaluating {env}", tasks if size is None else min(tasks, size))
    done = 0

    def count(_: object) -> None:
        nonlocal done
        done += 1
        if display is not None:
            display.update(done)

    with Rollout(engine, {env: arena}, concurrency=slots) as rollout:
        sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
        return evaluate(rollout, env, tasks=tasks, sampling=sampling, seed=seed, on_episode=count)


def examine_engine(kind: str, model: str, *, device: str = "auto", seed: int = 0) -> EngineReport:
    """Why an engine's log-probabilities differ from the trainer's, on a model directory or a run's newest checkpoint.

    kind: torch or vllm. See `ludus.agents.engine_doctor`.
    """
    from .train import newest_model

    if kind not in ("torch", "vllm"):
        raise EngineError(f"The engine {kind} is unknown; choose torch or vllm.")

    network, tokenizer = prepare_model(ModelConfig(path=newest_model(model)), seed, device)
    longest = getattr(network.config, "max_position_embeddings", None) or 512
    config = EngineConfig.model_validate({"kind": kind, "slots": 16, "max_length": min(512, longest)})
    with build_engine(config, network, tokenizer) as engine:
        return diagnose_engine(engine, network, tokenizer, seed=seed)
