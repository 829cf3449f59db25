"""TextEnv: a Gymnasium environment whose observations and actions are text, with tools and verified rewards.

Invariant: the hidden answer is in no observation and, before the final answer was judged, in no info; a reward is
always the verdict of `verify` on that answer, and where the infrastructure fails there is an InfrastructureError.
"""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from ..verifiers.part import is_finite
from ..verifiers.shaping import shaping_term
from ..verifiers.verdict import InfrastructureError, Outcome, Verdict
from .errors import EnvError, NoDemonstration, ToolError, did_you_mean
from .options import check_text
from .source import TaskSource
from .spaces import UnicodeText
from .task import Message, Task
from .tool import Tool
from .tool_call import Dialect, MalformedCall, ToolCall, check_dialect, parse_calls

MAX_OBSERVATION_CHARS = 20_000
"""A longer result of a tool is cut."""
_ENDLESS = 2**31


class EnvStop(StrEnum):
    """Why an episode ended in its environment."""

    ANSWER = "answer"
    """A final answer was given and verified."""
    MAX_TURNS = "max_turns"
    """All turns were used and no final answer was given."""


class UnjudgedError(InfrastructureError):
    """The verdict on a final answer is ERROR; its parts say what failed."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


@dataclass(frozen=True)
class CallRecord:
    """One tool call of the running episode, with the text that answered it; `failed` where it gave no result."""

    name: str
    arguments: dict[str, Any]
    result: str
    failed: bool


class TextEnv(gymnasium.Env[str, str]):
    """One task at a time: the agent calls tools, each answered by an observation, until it gives a final answer.

    Subclasses write `verify`, and where they want to `respond`, `demonstrate` and `potential`.

    source: where tasks come from. tools, dialect: see `tool_call`. system_prompt: None takes the class's default,
    "" leaves the system message out. max_turns: actions an episode may have.
    `info` of reset holds task_id and messages (those that open the episode). `info` of step holds messages (to be
    appended), verdict (at the end), rewards (by name) and stop_reason (EnvStop, at the end). A verdict ERROR is raised
    as UnjudgedError.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    default_system_prompt: ClassVar[str] = ""
    judged: ClassVar[Literal["answer", "program", "state"]] = "answer"
    """What the reward is for, which `check_env` asks: the final answer; the last program in it; or what the tools have
    changed, whatever the answer says."""
    shaping_gamma: float = 1.0
    """Discount of the potential, 0 to 1: that of the estimator, for shaping to leave the best policy what it is."""

    def __init__(
        self,
        source: TaskSource,
        *,
        tools: Sequence[Tool] = (),
        dialect: Dialect = "json",
        system_prompt: str | None = None,
        max_turns: int = 8,
        render_mode: str | None = None,
    ) -> None:
        if type(self).verify is TextEnv.verify:
            raise EnvError(f"{type(self).__name__} must define verify(self, task, response) and return a Verdict.")
        check_dialect(tools, dialect)
        if isinstance(max_turns, bool) or not isinstance(max_turns, int):
            raise EnvError(f"max_turns = {max_turns!r:.100} must be a whole number, such as 8.")
        if max_turns < 1:
            raise EnvError(f"max_turns = {max_turns} leaves no turn to answer in; give 1 or more.")
        check_text("system_prompt", system_prompt)
        if render_mode not in (None, "ansi"):
            raise EnvError(f"Unknown render_mode {render_mode!r}; choose 'ansi' or None.")
        self.source = source
        self.tools = tuple(tools)
        self.dialect: Dialect = dialect
        self.system_prompt = self.default_system_prompt if system_prompt is None else system_prompt
        self.max_turns = max_turns
        self.render_mode = render_mode
        self.observation_space = UnicodeText()
        self.action_space = UnicodeText()
        self.task: Task | None = None
        self.calls: list[CallRecord] = []
        self.turn = 0
        self._running = False
        self._transcript: list[Message] = []
        self._potential: float | None = None

    # What the author of an environment writes.

    @abstractmethod
    def verify(self, task: Task, response: str) -> Verdict:
        """Judge a final answer. `self.calls` holds the tool calls of the episode."""
        raise NotImplementedError

    def respond(self, task: Task, action: str) -> str | None:
        """The next user message where an action without tool calls is not the final answer; None where it is."""
        return None

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        """The actions of one episode to learn from; with probability flaw_rate it makes a typical mistake.

        Raises NoDemonstration where there are none.
        """
        raise NoDemonstration(f"{type(self).__name__} has no demonstrations; train it without a supervised start.")

    def baselines(self) -> dict[str, float]:
        """Scores between 0 and 1 on these tasks of simple methods without a model, to be printed beside every score."""
        return {}

    def rewards(self, task: Task, verdict: Verdict) -> dict[str, float]:
        """Named rewards of a final answer, for the record; the reward that counts is `verdict.reward`.

        The default has "correct", the verdict as a whole, and each of its parts with a value by its path.
        """
        parts = {path: part.value for path, part in verdict.walk() if part.value is not None}
        return {**parts, "correct": verdict.reward}

    def potential(self, task: Task) -> float | None:
        """How promising the episode looks now, in units of reward; None, the default, for no shaping.

        Asked after `reset` and after each step that does not end the episode. Each step then earns
        `shaping_gamma * potential after - potential before` more, under the name "shaping", where the end of an episode
        has the potential 0, whether it was answered, used up its turns, or was cut from outside (see `cut`).
        """
        return None

    # What Gymnasium and the rollout driver call.

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """The tools as a chat template wants them; none in the dialect "tag", which only the system prompt explains."""
        return [tool.schema for tool in self.tools] if self.dialect == "json" else []

    def messages(self, task: Task) -> list[Message]:
        """The messages that open an episode: the system message, if any, and the prompt."""
        opening: list[Message] = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*opening, {"role": "user", "content": task.prompt}]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode on options["task"], on the source's task options["index"], or on a random one."""
        super().reset(seed=seed)
        self.task = self._choose_task(options or {})
        self.calls = []
        self.turn = 0
        self._running = True
        self._transcript = self.messages(self.task)
        self._potential = self._ask_potential(self.task)
        return self.task.prompt, {"task_id": self.task.id, "messages": self.messages(self.task)}

    def _choose_task(self, options: dict[str, Any]) -> Task:
        for key in options:
            if key not in ("task", "index"):
                raise EnvError(f"Unknown reset option {key!r}.{did_you_mean(str(key), ('task', 'index'))}")
        if "task" in options:
            if not isinstance(options["task"], Task):
                raise EnvError(f"The reset option 'task' must be a Task, not {type(options['task']).__name__}.")
            return options["task"]
        if "index" in options:
            try:
                index = operator.index(options["index"])
            except TypeError as error:
                raise EnvError(f"The reset option 'index' must be a whole number, not {options['index']!r}.") from error
            return self.source.task(index)
        if self.source.size == 0:
            raise EnvError("The task source is empty; give it at least one task.")
        return self.source.task(int(self.np_random.integers(self.source.size or _ENDLESS)))

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Answer one message of the agent: run its tool calls, or verify it as the final answer."""
        if not self._running or self.task is None:
            raise ResetNeeded("This episode is over or was never started; call reset() before step().")
        if not isinstance(action, str):
            raise EnvError(f"An action must be text (str), not {type(action).__name__}; give step() a string.")
        self.turn += 1
        self._transcript.append({"role": "assistant", "content": action})
        observation, reward, terminated, truncated, info = self._answer(self.task, action)
        if self._potential is not None:
            term = self._shape(self.task, ended=terminated or truncated)
            reward += term
            info["rewards"] = {**info["rewards"], "shaping": term}
        return observation, reward, terminated, truncated, info

    def cut(self, *, acted: bool) -> float:
        """End the episode from outside, for want of tokens. Its last action earns the returned shaping besides.

        acted: the last action was never given to `step`; else it was, and its term counted on an episode that goes on.
        """
        before, self._potential, self._running = self._potential or 0.0, None, False
        return shaping_term(before, None) * (1.0 if acted else self.shaping_gamma)

    def _answer(self, task: Task, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        calls = parse_calls(action, self.tools, self.dialect)
        follow_up = None if calls else self.respond(task, action)
        if follow_up is not None and not isinstance(follow_up, str):
            raise EnvError(
                f"{type(self).__name__}.respond must return text (str) or None, not {type(follow_up).__name__}."
            )
        if not calls and follow_up is None:
            return self._finish(task, action)
        if self.turn >= self.max_turns:
            self._running = False
            return "", 0.0, False, True, self._info([], stop_reason=EnvStop.MAX_TURNS)
        if follow_up is not None:
            messages: list[Message] = [{"role": "user", "content": follow_up}]
        else:
            messages = [{"role": "tool", "content": self._answer_call(call)} for call in calls]
        self._transcript += messages
        return "\n".join(message["content"] for message in messages), 0.0, False, False, self._info(messages)

    def _finish(self, task: Task, response: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._running = False
        verdict = self.verify(task, response)
        if not isinstance(verdict, Verdict):
            raise EnvError(f"{type(self).__name__}.verify must return a Verdict, not {type(verdict).__name__}.")
        if verdict.outcome is Outcome.ERROR:
            raise UnjudgedError(verdict)
        reward = float(verdict.reward)
        rewards = self.rewards(task, verdict)
        return "", reward, True, False, self._info([], verdict, rewards, EnvStop.ANSWER)

    def _shape(self, task: Task, ended: bool) -> float:
        """The shaping of the step that was just made."""
        before, after = self._potential, None if ended else self._ask_potential(task)
        if after is None and not ended:
            raise EnvError(f"{type(self).__name__}.potential gave {before!r} and then None; return a number each time.")
        self._potential = after
        return shaping_term(before or 0.0, after, self.shaping_gamma)

    def _ask_potential(self, task: Task) -> float | None:
        name, value = type(self).__name__, self.potential(task)
        if value is None:
            return None
        if not is_finite(value):
            raise EnvError(f"{name}.potential must return a finite number or None, not {value!r}.")
        if not 0.0 <= self.shaping_gamma <= 1.0:
            raise EnvError(f"{name}.shaping_gamma = {self.shaping_gamma} must lie between 0 and 1.")
        return float(value)

    @staticmethod
    def _info(
        messages: list[Message],
        verdict: Verdict | None = None,
        rewards: dict[str, float] | None = None,
        stop_reason: EnvStop | None = None,
    ) -> dict[str, Any]:
        copies = [dict(message) for message in messages]
        return {"messages": copies, "verdict": verdict, "rewards": rewards or {}, "stop_reason": stop_reason}

    def _answer_call(self, call: ToolCall | MalformedCall) -> str:
        if isinstance(call, MalformedCall):
            return f"Error: {call.problem}"[:MAX_OBSERVATION_CHARS]
        tool = next(tool for tool in self.tools if tool.name == call.name)
        failed = True
        try:
            result, failed = tool.call(call.arguments), False
        except ToolError as error:
            result = f"Error: {error}"
        except InfrastructureError:
            raise
        except OSError as error:
            raise InfrastructureError(f"The tool {tool.name} failed: {error}") from error
        except Exception as error:  # a policy must not end a bad episode by crashing a tool
            result = f"Error: {tool.name} failed ({type(error).__name__}: {error})"
        result = result[:MAX_OBSERVATION_CHARS]
        self.calls.append(CallRecord(tool.name, call.arguments, result, failed))
        return result

    def render(self) -> str | None:
        """The readable episode so far, where render_mode is "ansi"."""
        if self.render_mode is None:
            return None
        return "\n".join(f"[{message['role']}] {message['content']}" for message in self._transcript)
