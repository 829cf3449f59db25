"""evaluate_endpoint: a model behind an OpenAI-compatible endpoint against one environment."""

from __future__ import annotations

from typing import Any

from .agents.budget import Budget
from .agents.chat_rollout import ChatRollout
from .agents.engine import Sampling
from .agents.evaluate import EvalResult, evaluate
from .agents.openai_engine import EndpointError, OpenAIEngine
from .agents.rate_limit import RateLimit
from .agents.rollout import Arena
from .envs.registration import make_env
from .evaluation_common import counter, with_split
from .trainers.recorder import Show


def evaluate_endpoint(
    env: str,
    model: str,
    endpoint: str,
    *,
    tasks: int = 200,
    split: str = "test",
    seed: int = 0,
    options: dict[str, Any] | None = None,
    temperature: float = 0.0,
    max_tokens: int = 256,
    api_key: str = "",
    concurrency: int = 16,
    timeout_s: float = 120.0,
    logprobs: bool = False,
    max_requests_per_minute: int | None = None,
    max_tokens_per_minute: int | None = None,
    budget_tokens: int | None = None,
    budget_usd: float | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    extra_body: dict[str, Any] | None = None,
    display: Show | None = None,
) -> EvalResult:
    """Play `tasks` tasks of an environment once each, on the model of that name behind an endpoint.

    endpoint: up to and including "/v1". api_key: sent there and nowhere else, and written nowhere. concurrency:
    episodes played at once. timeout_s: of one request. logprobs: keep those of the sampled tokens in the episodes'
    replies. price_in, price_out: USD for a million tokens of prompts and of answers. extra_body: further fields of each
    request. Where a budget is used up nothing more is asked: `stopped` of the result says so, the episodes that were
    not played to their end are errors, and the numbers are those of the others.
    """
    if concurrency < 1:
        raise EndpointError(f"concurrency = {concurrency} plays nothing; give 1 or more.")
    settings = with_split(env, options, split)
    engine = OpenAIEngine(
        model,
        endpoint,
        api_key=api_key,
        timeout_s=timeout_s,
        logprobs=logprobs,
        limit=RateLimit(max_requests_per_minute, max_tokens_per_minute),
        budget=Budget(tokens=budget_tokens, usd=budget_usd, price_in=price_in, price_out=price_out),
        extra_body=extra_body,
        note=None if display is None else display.note,
    )
    arena = Arena.for_chat(env, lambda: make_env(env, **settings))
    count = counter(display, env, arena, tasks)
    with ChatRollout(engine, {env: arena}, concurrency=concurrency) as rollout:
        sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
        try:
            return evaluate(rollout, env, tasks=tasks, sampling=sampling, seed=seed, on_episode=count)
        finally:
            rollout.await_(engine.close())
