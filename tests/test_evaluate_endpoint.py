"""Evaluating a model behind an endpoint, from the command line: numbers, limits, faults, and no key anywhere."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from judge_server import Handler, fails, hangs, replies, says, sends

from ludus.evaluate_endpoint import evaluate_endpoint
from ludus.evaluation_folder import write_evaluation
from ludus.run_folder import RunFolder
from ludus.sandbox.errors import LudusError

WORDS = "ludus/WordMath-v0"
KEY = "sk-secret-1234567890"


def command(url: str, options: str = "") -> list[str]:
    return [sys.executable, "-m", "ludus", "eval", WORDS, "--model", "m", "--endpoint", url, *options.split()]


def run(url: str, options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MY_KEY": KEY}
    return subprocess.run(command(url, options), cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def calculates(handler: Handler, request: dict) -> None:
    """Calls the calculator once and then says 5."""
    if request["messages"][-1]["role"] == "tool":
        return says("5")(handler, request)
    function = {"name": "calculator", "arguments": '{"expression": "2+3"}'}
    call = {"id": "c1", "type": "function", "function": function}
    return replies({"content": None, "tool_calls": [call]}, "tool_calls")(handler, request)


def test_an_evaluation_says_what_it_used_and_keeps_everything_but_the_key(serve, tmp_path: Path) -> None:
    server = serve(calculates)
    options = "--tasks 5 --set dialect=json --price-in 2 --price-out 10 --api-key-env MY_KEY --out out"
    done = run(server.url, options, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 of ludus/WordMath-v0" in done.stdout
    assert "10 requests, 1,000 tokens in, 100 out, 0.003 USD" in done.stdout
    assert set(server.keys) == {f"Bearer {KEY}"}
    kept = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    whole = b"".join(gzip.decompress(data) if file.suffix == ".gz" else data for file, data in kept.items())
    assert KEY.encode() not in whole and KEY not in done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["usage"] == {
        "requests": 10, "prompt_tokens": 1000, "completion_tokens": 100, "cost_usd": pytest.approx(0.003)
    }  # fmt: skip
    assert f"endpoint: {server.url}" in (tmp_path / "out" / "evaluation.yaml").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Tokens used of the endpoint" in page and "1,000 in, 100 out, 10 requests, 0.003 USD" in page
    (episode, *_) = RunFolder(tmp_path / "out").read_episodes("eval-final")
    assert [m["role"] for m in episode["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert episode["replies"][0]["tool_calls"][0]["name"] == "calculator"


def test_a_budget_ends_the_asking_and_what_was_played_stays(serve, tmp_path: Path) -> None:
    server = serve(replies({"content": "5"}, usage=(90, 10)))
    done = run(server.url, "--tasks 12 --budget-tokens 700 --max-tokens 50 --concurrency 3", tmp_path)
    assert done.returncode == 0, done.stderr
    played = len(server.requests)
    assert 1 <= played <= 6
    assert f"{played} of ludus/WordMath-v0" in done.stdout and f"{12 - played} error" in done.stdout
    sentences = [line for line in done.stderr.splitlines() if line.startswith("stopped: ")]
    assert len(sentences) == 1
    assert re.match(rf"stopped: the budget of 700 tokens is used up: {played}00 are spent, and the next", sentences[0])
    assert sentences[0].endswith(f"; {12 - played} of 12 tasks were not played to the end.")


def test_tasks_that_were_not_asked_are_in_no_average(serve) -> None:
    result = evaluate_endpoint(
        WORDS, "m", serve(replies({"content": "5"}, usage=(90, 10))).url, tasks=9, max_tokens=50, concurrency=1,
        budget_tokens=800,
    )  # fmt: skip
    assert result.tasks + result.errors == 9 and 0 < result.errors < 9
    assert result.stopped is not None and result.outcomes["error"] == result.errors
    assert [episode.reward is None for episode in result.episodes] == [False] * result.tasks + [True] * result.errors


USELESS: dict[str, tuple[Any, str]] = {
    "401": (
        fails(401, "wrong key"),
        "status 401, wrong key (give the right api_key; on the command line --api-key-env",
    ),
    "404": (fails(404, "no model m"), "status 404, no model m (the address ends in /v1, and under /models it lists"),
    "html": (sends("<html>"), "(an address of chat completions ends in /v1)"),
    "500": (fails(500, "boom"), "failed, also at try 5: status 500, boom (its log says more)"),
    "429": (fails(429, "slow down", Retry_After="900"), "slow down; the next try, after 900 s, is too late"),
    "never": (hangs, "gave no answer in 1.2 s (give more than timeout_s = 0.4, or ask less at once)"),
}


@pytest.mark.parametrize("kind", USELESS)
def test_an_endpoint_that_is_of_no_use_is_one_sentence_and_exit_code_2(serve, tmp_path: Path, kind: str) -> None:
    behaviour, sentence = USELESS[kind]
    options = "--tasks 30 --concurrency 4 --out out" + (" --timeout 0.4" if kind == "never" else "")
    done = run(serve(behaviour).url, options, tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and sentence in errors[0] and "Traceback" not in done.stderr
    assert errors[0].startswith("error: All 30 episodes of ludus/WordMath-v0 failed, the first because the endpoint")
    assert list(tmp_path.iterdir()) == [], "nothing half-started remains"


def test_no_server_is_one_sentence(tmp_path: Path) -> None:
    done = run("http://127.0.0.1:9/v1", "--tasks 3", tmp_path)
    assert done.returncode == 2
    assert "the connection broke" in done.stderr and "(start the server or correct the address)" in done.stderr


def test_ctrl_c_ends_an_evaluation_that_waits(serve, tmp_path: Path) -> None:
    server = serve(hangs)
    with subprocess.Popen(command(server.url), cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not server.requests:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said


def test_more_at_once_than_none(serve) -> None:
    with pytest.raises(LudusError, match="concurrency = 0 plays nothing; give 1 or more"):
        evaluate_endpoint(WORDS, "m", "http://127.0.0.1:9/v1", concurrency=0)


def test_log_probabilities_are_kept_where_they_are_wanted(serve, tmp_path: Path) -> None:
    logprobs = {"content": [{"token": "5", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    server = serve(replies({"content": "5"}, logprobs=logprobs))
    result = evaluate_endpoint(WORDS, "m", server.url, tasks=2, logprobs=True)
    assert all(request["logprobs"] is True for request in server.requests)
    write_evaluation(tmp_path / "out", {"env": WORDS, "model": "m"}, result)
    rows = RunFolder(tmp_path / "out").read_episodes("eval-final")
    assert [row["replies"][0]["logprobs"] for row in rows] == [[["5", -0.5]]] * 2


def test_importing_it_loads_no_torch() -> None:
    heavy = ["torch", "transformers", "openai"]
    code = f"import sys, ludus.evaluate_endpoint; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
