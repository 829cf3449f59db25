"""A judge behind an endpoint: what becomes of an answer, of several, and of one that says nothing usable."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from judge_server import Handler, check_of, fails, finds, hangs, says

from ludus.verifiers.completer import Completer, Completion
from ludus.verifiers.errors import VerifierError
from ludus.verifiers.judge import LLMJudge
from ludus.verifiers.verdict import Outcome
from ludus.verifiers.verifier import Verifier

# --- an answer becomes a verdict -----------------------------------------------------------------------------------


def test_a_judge_that_says_correct_gives_value_one_with_its_reasons_and_costs(serve, ask) -> None:
    server = serve(finds("correct"))
    verdict = LLMJudge(ask(server)).verify("4", "It is four.", prompt="What is 2 + 2?")
    assert (verdict.outcome, verdict.value) == (Outcome.CORRECT, 1.0)
    assert verdict.evidence["reasoning"] == "I compared them: correct."
    assert verdict.evidence["model"] == "judge-1-2026"
    assert verdict.evidence["attempts"] == 1
    assert verdict.evidence["usage"] == {"prompt_tokens": 100, "completion_tokens": 10}
    json.dumps(verdict.to_json())


def test_a_judge_that_says_incorrect_gives_value_zero(serve, ask) -> None:
    verdict = LLMJudge(ask(serve(finds("incorrect")))).verify("4", "It is five.")
    assert (verdict.outcome, verdict.value) == (Outcome.WRONG, 0.0)


def test_the_judge_is_shown_the_task_the_right_answer_the_criteria_and_the_response(serve, ask) -> None:
    server = serve(finds("correct"))
    LLMJudge(ask(server), "Count spelling, too.").verify({"x": 4}, "It is four.\nSure.", prompt="What is 2 + 2?")
    request = server.requests[0]
    shown = request["messages"][1]["content"]
    for part in ("Count spelling, too.", "> What is 2 + 2?", '{"x": 4}', "> It is four.\n> Sure."):
        assert part in shown
    assert (request["temperature"], request["seed"], request["max_tokens"]) == (0.0, 0, 2048)
    assert request["response_format"]["json_schema"]["schema"]["properties"]["verdict"]["enum"] == [
        "correct",
        "incorrect",
    ]


def test_the_key_goes_to_the_endpoint_and_the_environments_does_not(serve, ask, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    server = serve(finds("correct"))
    LLMJudge(ask(server)).verify("4", "4")
    LLMJudge(ask(server, api_key="mine")).verify("4", "4")
    assert server.keys == ["Bearer none", "Bearer mine"]


def test_an_empty_response_is_wrong_and_nobody_is_asked(serve, ask) -> None:
    server = serve(finds("correct"))
    judge = LLMJudge(ask(server))
    for response in ("", " \n\t", "\u200b\u2060", "\u202e"):
        assert judge.verify("4", response).outcome is Outcome.WRONG
    assert server.requests == []


def test_the_same_server_answers_give_the_same_verdict(serve, ask) -> None:
    script = (fails(500), says("hm"), finds("correct"), finds("incorrect"), finds("correct"))
    verdicts = [
        LLMJudge(ask(server), votes=3).verify("4", "It is four.") for server in (serve(*script), serve(*script))
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].evidence["attempts"] == 5


def test_judge_and_completer_keep_their_protocols(serve, ask) -> None:
    completer = ask(serve(finds("correct")))
    assert isinstance(completer, Completer)
    assert isinstance(LLMJudge(completer), Verifier)


# --- scores and votes ----------------------------------------------------------------------------------------------


def test_a_score_of_seven_in_ten_is_worth_seven_tenths(serve, ask) -> None:
    verdict = LLMJudge(ask(serve(finds(7))), "Style.", scale=10).verify(None, "A poem.")
    assert (verdict.outcome, verdict.value) == (Outcome.PARTIAL, 0.7)
    assert verdict.evidence["score"] == 7.0


@pytest.mark.parametrize(("score", "outcome"), [(7, Outcome.CORRECT), (6.5, Outcome.WRONG)])
def test_with_a_pass_score_a_score_is_right_or_wrong(serve, ask, score, outcome) -> None:
    judge = LLMJudge(ask(serve(finds(score))), scale=10, pass_score=7)
    assert judge.verify(None, "A poem.").outcome is outcome


def test_the_median_of_several_scores_counts(serve, ask) -> None:
    verdict = LLMJudge(ask(serve(finds(2), finds(10), finds(4))), scale=10, votes=3).verify(None, "A poem.")
    assert verdict.value == 0.4
    assert verdict.evidence["reasoning"] == "I compared them: 4."


def test_the_majority_of_the_votes_counts_and_each_has_a_seed_of_its_own(serve, ask) -> None:
    server = serve(finds("incorrect"), finds("correct"), finds("correct"))
    verdict = LLMJudge(ask(server), votes=3, temperature=0.7).verify("4", "It is four.")
    assert verdict.outcome is Outcome.CORRECT
    assert [vote["verdict"] for vote in verdict.evidence["votes"]] == ["incorrect", "correct", "correct"]
    assert len({request["seed"] for request in server.requests}) == 3


def test_nobody_is_asked_once_the_majority_is_sure(serve, ask) -> None:
    server = serve(finds("correct"))
    LLMJudge(ask(server), votes=5).verify("4", "It is four.")
    assert len(server.requests) == 3


def test_a_tie_is_undecided(serve, ask) -> None:
    verdict = LLMJudge(ask(serve(finds("correct"), finds("incorrect"))), votes=2).verify("4", "It is four.")
    assert (verdict.outcome, verdict.value) == (Outcome.UNDECIDED, None)


def test_one_vote_of_three_is_no_majority_where_the_others_are_unusable(serve, ask) -> None:
    judge = LLMJudge(ask(serve(finds("correct"), says("hm"))), votes=3, retries=0)
    assert judge.verify("4", "It is four.").outcome is Outcome.UNDECIDED
    judge = LLMJudge(ask(serve(finds(9), says("hm"))), votes=3, retries=0, scale=10)
    assert judge.verify("4", "It is four.").outcome is Outcome.UNDECIDED


# --- a judge that says nothing usable ------------------------------------------------------------------------------

UNUSABLE = {
    "prose": says("The response is correct."),
    "two verdicts": finds("correct", final_verdict="incorrect"),
    "no check": says('{"reasoning": "", "verdict": "correct"}'),
    "wrong check": finds("correct", check="0" * 12),
    "another word": finds("Correct!"),
    "a list": says("[]"),
    "nothing": says(""),
    "cut off": says('{"reasoning": "Let me', "length"),
    "filtered": says("", "content_filter"),
    "deep": says("[" * 50_000),
    "huge": says("9" * 200_000),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_answer_is_asked_for_again_and_then_undecided(serve, ask, kind) -> None:
    server = serve(UNUSABLE[kind])
    verdict = LLMJudge(ask(server), retries=1).verify("4", "It is four.")
    assert (verdict.outcome, verdict.value, verdict.reward) == (Outcome.UNDECIDED, None, 0.0)
    assert len(server.requests) == 2
    assert server.requests[0]["messages"] != server.requests[1]["messages"]


def test_two_objects_are_two_verdicts(serve, ask) -> None:
    def behave(handler: Handler, request: dict) -> None:
        row = '{"reasoning": "", "verdict": "%s", "check": "%s"}'
        says("\n".join(row % (verdict, check_of(request)) for verdict in ("correct", "incorrect")))(handler, request)

    assert LLMJudge(ask(serve(behave))).verify("4", "It is four.").outcome is Outcome.UNDECIDED


def test_a_usable_answer_after_an_unusable_one_counts(serve, ask) -> None:
    server = serve(says("hm"), finds("correct"))
    verdict = LLMJudge(ask(server)).verify("4", "It is four.")
    assert verdict.outcome is Outcome.CORRECT
    assert verdict.evidence["unusable"] == ["it was not one JSON object and nothing else"]
    assert "it was not one JSON object" in server.requests[1]["messages"][1]["content"]


# --- many at once --------------------------------------------------------------------------------------------------


def test_threads_share_a_judge_and_each_gets_its_own_verdict(serve, ask) -> None:
    def behave(handler: Handler, request: dict) -> None:
        right = "> It is 4." in request["messages"][1]["content"]
        finds("correct" if right else "incorrect")(handler, request)

    judge = LLMJudge(ask(serve(behave)))
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(lambda i: judge.verify("4", f"It is {4 if i % 3 == 0 else 5}. ({i})"), range(64)))
    assert [verdict.value for verdict in verdicts] == [float(i % 3 == 0) for i in range(64)]


def test_a_judge_is_asked_from_inside_an_event_loop(serve, ask) -> None:
    import asyncio

    judge = LLMJudge(ask(serve(finds("correct"))))

    async def inside() -> Any:
        return judge.verify("4", "It is four.")

    assert asyncio.run(inside()).outcome is Outcome.CORRECT


def test_a_pickled_judge_and_a_closed_one_open_new_connections(serve, ask) -> None:
    judge = LLMJudge(ask(serve(finds("correct"))))
    assert judge.verify("4", "It is four.").outcome is Outcome.CORRECT
    copy = pickle.loads(pickle.dumps(judge))
    assert copy.verify("4", "It is four.").outcome is Outcome.CORRECT
    copy.completer.close()
    judge.completer.close()
    assert judge.verify("4", "It is four.").outcome is Outcome.CORRECT


def test_closing_ends_a_call_that_waits(serve, ask) -> None:
    server = serve(hangs)
    completer = ask(server, timeout_s=20)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(LLMJudge(completer, timeout_s=20).verify, "4", "It is four.")
        while not server.requests:
            time.sleep(0.01)
        completer.close()
        assert waiting.result(10).outcome is Outcome.ERROR
    names = {thread.name for thread in threading.enumerate()}
    deadline = time.monotonic() + 30
    while "ludus-completer" in names and time.monotonic() < deadline:
        time.sleep(0.01)
        names = {thread.name for thread in threading.enumerate()}
    assert "ludus-completer" not in names


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_asks_for_itself(serve, ask) -> None:
    server = serve(finds("correct"))
    code = (
        "import os, sys\n"
        "from ludus.verifiers.judge import LLMJudge\n"
        "from ludus.verifiers.openai_completer import OpenAICompleter\n"
        "judge = LLMJudge(OpenAICompleter('judge-1', sys.argv[1]), timeout_s=8)\n"
        "assert judge.verify('4', '4').value == 1.0\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if judge.verify('4', '4').value == 1.0 else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, server.url], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# --- any model will do ---------------------------------------------------------------------------------------------


class Echo:
    """A completer that needs no server."""

    def complete(self, messages, *, timeout_s, temperature=None, seed=None, schema=None) -> Completion:
        check = messages[-1]["content"].rpartition('"check": the text ')[2][:12]
        return Completion(json.dumps({"reasoning": "", "verdict": "correct", "check": check}), "echo")


def test_a_completer_of_ones_own_is_enough() -> None:
    assert isinstance(Echo(), Completer)
    assert LLMJudge(Echo()).verify(None, "It is four.").outcome is Outcome.CORRECT


# --- set-up ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"criteria": " "}, "criteria"),
        ({"scale": 0}, "scale"),
        ({"pass_score": 5}, "pass_score"),
        ({"scale": 10, "pass_score": 11}, "pass_score"),
        ({"votes": 0}, "votes"),
        ({"retries": -1}, "retries"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"max_chars": 10}, "max_chars"),
    ],
)
def test_a_judge_that_cannot_work_is_refused_with_the_option_at_fault(options, word) -> None:
    with pytest.raises(VerifierError, match=word):
        LLMJudge(Echo(), **options)
    with pytest.raises(VerifierError, match="completer"):
        LLMJudge("gpt")  # type: ignore[arg-type]


def test_an_empty_right_answer_is_the_tasks_fault() -> None:
    with pytest.raises(VerifierError, match="right answer"):
        LLMJudge(Echo()).verify("", "It is four.")


def test_importing_the_judge_does_not_import_the_sdk() -> None:
    code = "import sys, ludus.verifiers.judge, ludus.verifiers.openai_completer; print('openai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
