"""What TextEnv promises to Gymnasium, to the rollout driver, and to the authors of environments."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from ludus.envs import EnvError, ListSource, NoDemonstration, Task, TextEnv, Tool, ToolError, make_env, tool
from ludus.envs.spaces import UnicodeText
from ludus.verifiers.verdict import InfrastructureError, Verdict

pytestmark = pytest.mark.filterwarnings("error")


@tool
def trouble(kind: str) -> str:
    """Fail in a chosen way."""
    errors: dict[str, Exception] = {
        "tool": ToolError("no such kind"),
        "bug": ZeroDivisionError("division by zero"),
        "disk": OSError("the disk is gone"),
        "grader": InfrastructureError("the grader is gone"),
    }
    if kind in errors:
        raise errors[kind]
    return kind * 100_000 if kind == "long" else kind


class Echo(TextEnv):
    """Say the answer."""

    default_system_prompt = "Say it."

    def __init__(self, tools: tuple[Tool, ...] = (trouble,), **options: Any) -> None:
        tasks = [Task(f"echo-{word}", f"Say {word[0]}", word) for word in ("alpha", "beta", "gamma")]
        super().__init__(ListSource(tasks), tools=tools, **{"dialect": "tag", **options})

    def verify(self, task: Task, response: str) -> Verdict:
        if response == "crash":
            return Verdict.error("the grader is gone")
        return Verdict.correct("said") if response == task.answer else Verdict.wrong("not said")


def started(**options: Any) -> Echo:
    env = Echo(**options)
    env.reset(options={"index": 0})
    return env


@pytest.mark.parametrize("name", ["ludus/WordMath-v0"])
@pytest.mark.parametrize("options", [{}, {"dialect": "json"}, {"split": "test", "render_mode": "ansi"}])
def test_gymnasiums_own_checker_passes_without_a_warning(name: str, options: dict[str, Any]) -> None:
    env = gymnasium.make(name, **options)
    assert env.unwrapped is env
    check_env(env)
    check_env(make_env(name, **options))


def test_reset_opens_with_system_and_prompt_and_hides_the_answer() -> None:
    observation, info = Echo().reset(options={"index": 1})
    assert observation == "Say b"
    assert info == {
        "task_id": "echo-beta",
        "messages": [{"role": "system", "content": "Say it."}, {"role": "user", "content": "Say b"}],
    }


def test_an_empty_system_prompt_leaves_the_message_out() -> None:
    _, info = Echo(system_prompt="").reset(options={"index": 1})
    assert [message["role"] for message in info["messages"]] == ["user"]


def test_reset_takes_a_task_or_draws_one_from_its_seed() -> None:
    env = Echo()
    task = Task("mine", "Say it", "it")
    assert env.reset(options={"task": task})[1]["task_id"] == "mine"
    drawn = [env.reset(seed=seed)[0] for seed in range(20)]
    assert drawn == [env.reset(seed=seed)[0] for seed in range(20)]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("index", ["abc", "1", 1.7, None])
def test_an_index_that_is_no_whole_number_is_told(index: Any) -> None:
    with pytest.raises(EnvError, match=re.escape(f"The reset option 'index' must be a whole number, not {index!r}.")):
        Echo().reset(options={"index": index})


def test_an_index_may_be_numpys() -> None:
    assert Echo().reset(options={"index": np.int64(1)})[1]["task_id"] == "echo-beta"


@pytest.mark.parametrize("options", [{"tsk": 1}, {"task": "alpha"}, {"index": 3}, {"index": -1}])
def test_reset_refuses_options_it_does_not_know(options: dict[str, Any]) -> None:
    with pytest.raises(EnvError):
        Echo().reset(options=options)


def test_a_right_answer_ends_the_episode_with_its_verdict() -> None:
    observation, reward, terminated, truncated, info = started().step("alpha")
    assert (observation, reward, terminated, truncated) == ("", 1.0, True, False)
    assert info["verdict"] == Verdict.correct("said")
    assert (info["messages"], info["rewards"], info["stop_reason"]) == ([], {"correct": 1.0}, "answer")


def test_a_tool_call_is_answered_and_the_episode_goes_on() -> None:
    env = started()
    observation, reward, terminated, truncated, info = env.step("<trouble>hello</trouble>")
    assert (observation, reward, terminated, truncated) == ("hello", 0.0, False, False)
    assert info == {
        "messages": [{"role": "tool", "content": "hello"}],
        "verdict": None,
        "rewards": {},
        "stop_reason": None,
    }
    assert env.step("alpha")[1] == 1.0


def test_several_calls_get_one_message_each_in_order() -> None:
    observation, *_, info = started().step("<trouble>a</trouble><trouble>tool</trouble><trouble>b</trouble>")
    assert observation == "a\nError: no such kind\nb"
    assert [message["content"] for message in info["messages"]] == ["a", "Error: no such kind", "b"]


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ("<trouble>tool</trouble>", "Error: no such kind"),
        ("<trouble>bug</trouble>", "Error: trouble failed (ZeroDivisionError: division by zero)"),
        ("<trouble>a", "Error: The call does not end: close <trouble> with </trouble>."),
        ("<troble>a</troble>", "Error: There is no tool 'troble'. Did you mean 'trouble'? Known: trouble."),
    ],
)
def test_a_failed_or_malformed_call_is_answered_and_not_raised(action: str, sentence: str) -> None:
    observation, reward, terminated, truncated, _ = started().step(action)
    assert (observation, reward, terminated, truncated) == (sentence, 0.0, False, False)


@pytest.mark.parametrize("action", ["<trouble>disk</trouble>", "<trouble>grader</trouble>", "crash"])
def test_a_failure_of_the_infrastructure_is_never_a_reward(action: str) -> None:
    with pytest.raises(InfrastructureError, match="is gone"):
        started().step(action)


def test_a_huge_tool_result_is_cut() -> None:
    assert len(started().step("<trouble>long</trouble>")[0]) == 20_000


def test_an_episode_without_an_answer_is_truncated_after_its_last_turn() -> None:
    env = started(max_turns=3)
    for _ in range(2):
        assert env.step("<trouble>a</trouble>")[2:4] == (False, False)
    observation, reward, terminated, truncated, info = env.step("<trouble>a</trouble>")
    assert (observation, reward, terminated, truncated) == ("", 0.0, False, True)
    assert (info["stop_reason"], info["verdict"], info["messages"]) == ("max_turns", None, [])


def test_an_answer_in_the_last_turn_still_counts() -> None:
    env = started(max_turns=1)
    assert env.step("alpha")[1:4] == (1.0, True, False)


@pytest.mark.parametrize("ending", [[], ["alpha"], ["<trouble>a</trouble>"]])
def test_step_needs_a_running_episode(ending: list[str]) -> None:
    env = Echo(max_turns=1)
    if ending:
        env.reset(options={"index": 0})
        env.step(ending[0])
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step("alpha")


@pytest.mark.parametrize("action", [3, None, b"alpha"])
def test_an_action_that_is_no_text_is_refused_and_leaves_the_episode_as_it_was(action: Any) -> None:
    env = started(max_turns=1, render_mode="ansi")
    before = env.render()
    with pytest.raises(EnvError, match=rf"An action must be text \(str\), not {type(action).__name__}"):
        env.step(action)
    assert (env.turn, env.render()) == (0, before)
    assert env.step("alpha")[1] == 1.0


def test_a_prompt_or_an_answer_as_the_user_that_is_no_text_is_told() -> None:
    class Counting(Echo):
        def respond(self, task: Task, action: str) -> Any:
            return 3

    with pytest.raises(EnvError, match=r"The prompt of the task 'a' must be text \(str\), not int"):
        Task("a", 3, "x")  # type: ignore[arg-type]
    env = Counting()
    env.reset()
    with pytest.raises(EnvError, match=r"Counting\.respond must return text \(str\) or None, not int"):
        env.step("alpha")


def test_an_author_can_answer_as_the_user() -> None:
    class Twice(Echo):
        def respond(self, task: Task, action: str) -> str | None:
            return "Are you sure?" if self.turn == 1 else None

    env = Twice()
    env.reset(options={"index": 0})
    observation, _, terminated, _, info = env.step("beta")
    assert (observation, terminated) == ("Are you sure?", False)
    assert info["messages"] == [{"role": "user", "content": "Are you sure?"}]
    assert env.step("alpha")[1] == 1.0


def test_an_environment_without_demonstrations_says_so() -> None:
    with pytest.raises(NoDemonstration, match="Echo has no demonstrations"):
        Echo().demonstrate(Task("a", "b", "c"), np.random.default_rng(0))


def test_the_transcript_is_readable() -> None:
    env = started(render_mode="ansi")
    env.step("<trouble>hello</trouble>")
    expected = "[system] Say it.\n[user] Say a\n[assistant] <trouble>hello</trouble>\n[tool] hello"
    assert env.render() == expected
    assert started().render() is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_turns": 0}, "leaves no turn to answer in; give 1 or more"),
        ({"render_mode": "human"}, "Unknown render_mode 'human'; choose 'ansi' or None"),
        ({"dialect": "xml"}, "Unknown tool dialect 'xml'"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(EnvError, match=sentence):
        Echo(**options)


def test_an_environment_without_a_verifier_is_refused_when_it_is_made() -> None:
    class Forgetful(TextEnv):
        pass

    with pytest.raises(EnvError, match=r"Forgetful must define verify\(self, task, response\)"):
        Forgetful(ListSource([]))


def test_an_empty_source_is_told_at_reset() -> None:
    class Empty(Echo):
        def __init__(self) -> None:
            TextEnv.__init__(self, ListSource([]))

    with pytest.raises(EnvError, match="The task source is empty"):
        Empty().reset()


def test_the_chat_template_gets_tools_only_where_calls_are_json() -> None:
    assert Echo().tool_schemas == []
    assert [schema["function"]["name"] for schema in make_env("ludus/WordMath-v0", dialect="json").tool_schemas] == [
        "calculator"
    ]


@given(st.text())
def test_any_text_is_an_action_and_an_observation(text: str) -> None:
    env = started()
    assert text in env.action_space
    observation, *_ = env.step(text)
    assert observation in env.observation_space


@given(st.integers(0, 2**31 - 1))
def test_sampled_text_is_in_its_space_and_follows_the_seed(seed: int) -> None:
    space, twin = UnicodeText(max_length=8, seed=seed), UnicodeText(max_length=8, seed=seed)
    texts = [space.sample() for _ in range(5)]
    assert all(text in space for text in texts)
    assert texts == [twin.sample() for _ in range(5)]
    assert space.from_jsonable(space.to_jsonable(texts)) == texts


def test_the_space_of_text_holds_lone_surrogates_and_nothing_but_text() -> None:
    space = UnicodeText(max_length=4)
    assert "\ud800" in space and "" in space
    assert 3 not in space and b"a" not in space and "abcde" not in space
    assert space == UnicodeText(max_length=4) != UnicodeText(max_length=5)
    with pytest.raises(ValueError, match="leave them out"):
        space.sample(mask=1)
