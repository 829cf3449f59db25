"""Evaluation on a real `vllm serve`: tool calls, log-probabilities, seeds, stop rules and refusals as it has them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ludus.agents.engine import ChatCompletion, EngineError, Sampling, StopReason
from ludus.agents.model import load_model
from ludus.agents.openai_engine import OpenAIEngine
from ludus.envs.calculator import calculator
from ludus.evaluate import evaluate_model
from ludus.evaluate_endpoint import evaluate_endpoint
from ludus.run_folder import RunFolder
from ludus.verifiers.completer import CompletionError

if TYPE_CHECKING:
    from conftest import VLLMServer

pytestmark = pytest.mark.vllm
WORDS = "ludus/WordMath-v0"
HELLO = [{"role": "user", "content": "What is 3*4?"}]


def asked(server: VLLMServer, samplings: Sequence[Sampling], messages: Any = HELLO, **options: Any) -> Any:
    """All at once."""

    async def run() -> list[ChatCompletion]:
        async with OpenAIEngine(options.pop("model", server.model), server.url, **options) as engine:
            tools = [calculator.schema]
            return await asyncio.gather(*(engine.chat(messages, tools, sampling) for sampling in samplings))

    return asyncio.run(run())


SEEDED = [Sampling(seed=seed, max_tokens=20) for seed in range(24)]


def test_tool_calls_come_apart_from_the_text(vllm_server: VLLMServer) -> None:
    answers = asked(vllm_server, SEEDED)
    called = [answer for answer in answers if answer.tool_calls]
    assert 4 <= len(called) <= 20, "every other time"
    for answer in called:
        (call,) = answer.tool_calls
        assert (call.name, call.arguments, answer.text) == ("calculator", '{"expression": "3*4"}', "")
    assert {answer.text for answer in answers if not answer.tool_calls} <= {"1", "2"}
    assert {answer.stop_reason for answer in answers} == {StopReason.END}
    assert all(answer.prompt_tokens > 12 and answer.completion_tokens in (2, 4) for answer in answers)


def test_each_request_has_its_own_seed(vllm_server: VLLMServer) -> None:
    def said() -> list[tuple[str, int]]:
        return [(answer.text, len(answer.tool_calls)) for answer in asked(vllm_server, SEEDED)]

    first = said()
    assert first == said() and len(set(first)) > 1


def test_log_probabilities_are_those_of_the_model(vllm_server: VLLMServer) -> None:
    model, tokenizer = load_model(str(vllm_server.folder))
    for answer in asked(vllm_server, SEEDED[:8], logprobs=True):
        assert answer.logprobs is not None and len(answer.logprobs) == answer.completion_tokens
        text = tokenizer.apply_chat_template(HELLO, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer.encode(text, add_special_tokens=False)
        sampled = tokenizer.convert_tokens_to_ids([token for token, _ in answer.logprobs])
        with torch.no_grad():
            logits_TV = model(torch.tensor([[*prompt, *sampled]])).logits[0, len(prompt) - 1 : -1]
        expected_T = logits_TV.log_softmax(-1)[range(len(sampled)), sampled]
        assert torch.tensor([value for _, value in answer.logprobs]) == pytest.approx(expected_T, abs=1e-4)


def test_episodes_with_tools_are_played_to_their_end(vllm_server: VLLMServer) -> None:
    result = evaluate_endpoint(
        WORDS, vllm_server.model, vllm_server.url, tasks=24, options={"dialect": "json"}, temperature=1.0,
        max_tokens=20, logprobs=True, price_in=1.0, price_out=1.0,
    )  # fmt: skip
    assert (result.tasks, result.errors, result.stopped) == (24, 0, None)
    assert result.usage is not None and result.usage.requests == sum(len(e.replies) for e in result.episodes)
    assert result.usage.completion_tokens == sum(r.completion_tokens for e in result.episodes for r in e.replies)
    rounds = [sum(message["role"] == "tool" for message in episode.messages) for episode in result.episodes]
    assert max(rounds) >= 2 and min(rounds) == 0
    for episode in result.episodes:
        assert {m["content"] for m in episode.messages if m["role"] == "tool"} <= {"12"}
        assert all(reply.logprobs for reply in episode.replies)
    assert {tuple(m.items()) for e in result.episodes for m in e.messages if m["role"] == "assistant"} >= {
        (("role", "assistant"), ("content", "1")),
        (("role", "assistant"), ("content", "2")),
    }


def test_an_endpoint_and_the_own_engine_say_the_same_greedily(vllm_server: VLLMServer) -> None:
    """Also with calls in the text, whose observations reach the model in the same role."""
    settings: dict[str, Any] = {"tasks": 6, "options": {"max_turns": 2}, "max_tokens": 20}
    there = evaluate_endpoint(WORDS, vllm_server.model, vllm_server.url, **settings)
    here = evaluate_model(WORDS, str(vllm_server.folder), **settings)
    assert [e.messages for e in there.episodes] == [e.messages for e in here.episodes]
    assert there.accuracy == here.accuracy


def test_a_saved_model_says_the_same_in_vllm_on_the_command_line(
    vllm: Any, tiny_model_folder: Path, tmp_path: Path
) -> None:
    asked = ["eval", WORDS, "--model", str(tiny_model_folder), "--tasks", "6", "--set", "max_turns=2"]
    for engine in ("vllm", "torch"):
        command = [sys.executable, "-m", "ludus", *asked, "--max-tokens", "20", "--engine", engine, "--out", engine]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    here, there = (RunFolder(tmp_path / engine).read_episodes("eval-final") for engine in ("torch", "vllm"))
    told = [[row["messages"], row["trajectories"][0]["token_ids"], row["reward"]] for row in here]
    assert told == [[row["messages"], row["trajectories"][0]["token_ids"], row["reward"]] for row in there]
    for row in there:
        assert any(value < 0 for value in row["trajectories"][0]["logprobs"])


def test_an_engine_that_there_is_not_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"The engine vlm is unknown; choose torch or vllm\."):
        evaluate_model(WORDS, str(tmp_path / "none"), engine="vlm")


def test_what_ends_a_turn_is_told(vllm_server: VLLMServer) -> None:
    (stopped,) = asked(vllm_server, [Sampling(temperature=0.0, stop=("</tool_call>",), max_tokens=20)])
    assert stopped.stop_reason is StopReason.STOP
    (cut,) = asked(vllm_server, [Sampling(temperature=0.0, max_tokens=1)])
    assert cut.stop_reason is StopReason.LENGTH
    (roomy,) = asked(vllm_server, [Sampling(temperature=0.0, max_tokens=5000)])
    assert roomy.stop_reason is StopReason.END
    (too_long,) = asked(vllm_server, [Sampling(max_tokens=5)], [{"role": "user", "content": "x" * 600}])
    assert (too_long.stop_reason, too_long.text, too_long.completion_tokens) == (StopReason.CONTEXT, "", 0)


def test_an_unknown_model_is_one_sentence(vllm_server: VLLMServer) -> None:
    with pytest.raises(CompletionError, match=r"status 404, The model `other` does not exist.* lists the names"):
        asked(vllm_server, [Sampling()], model="other")
