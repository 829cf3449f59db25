"""check_env_verifier: the verifier inside an environment, checked on right answers to the environment's own tasks.

Invariant: a response is judged after the tool calls of the demonstration were made, in an environment that no other
call is using, so that a verdict which depends on the episode is asked for in a fair one.
"""

from __future__ import annotations

import json
import queue
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..sandbox.check_report import CheckReport, CheckRow
from ..verifiers.check import check_verifier
from ..verifiers.observation import Call, WatchedThread
from ..verifiers.verdict import InfrastructureError, Outcome, Verdict
from .errors import EnvError, NoDemonstration
from .registration import make_env
from .source import epoch_index
from .task import Task
from .text_env import EnvStop, TextEnv


@dataclass(frozen=True)
class RightEpisode:
    """A task with the actions that solve it; the last is the final answer."""

    task: Task
    actions: tuple[str, ...]
    demonstrated: bool

    @property
    def opening(self) -> tuple[str, ...]:
        """The actions before the final answer."""
        return self.actions[:-1]

    @property
    def response(self) -> str:
        """The final answer."""
        return self.actions[-1]


class EnvVerifier:
    """`verify` of a registered environment as a Verifier. The task is found by its prompt, which must be known.

    Another gold answer than the task's own is put into the task. A pickled copy makes environments of its own.
    """

    def __init__(self, name: str, options: dict[str, Any], episodes: list[RightEpisode]) -> None:
        self.name = name
        self.options = options
        self.episodes = {episode.task.prompt: episode for episode in episodes}
        self._idle: queue.SimpleQueue[TextEnv] = queue.SimpleQueue()
        self._idle.put(make_env(name, **options))  # at once, so that an unknown name is told where a copy is made

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "options": self.options, "episodes": list(self.episodes.values())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """Play the task's opening, then judge the response. ERROR where the opening cannot be played."""
        episode = self.episodes[prompt]
        try:
            env = self._idle.get_nowait()
        except queue.Empty:
            env = make_env(self.name, **self.options)
        try:
            env.reset(seed=0, options={"task": episode.task})
            for action in episode.opening:
                env.step(action)
            task = episode.task if gold == episode.task.answer else replace(episode.task, answer=gold)
            return env.verify(task, response)
        except InfrastructureError as error:
            return Verdict.error(str(error))
        finally:
            self._idle.put(env)


def check_env_verifier(
    name: str,
    *,
    tasks: int = 8,
    seed: int = 0,
    deadline_s: float = 10.0,
    judges: bool = True,
    options: dict[str, Any] | None = None,
) -> CheckReport:
    """check_verifier for the environment registered as `name`, with right answers to so many of its tasks.

    A right answer is the last action of `demonstrate`; where there is no demonstration it is the task's answer as text.
    options: of the environment. Raises EnvError where there is no such environment or it has no tasks.
    """
    if tasks < 1:
        raise EnvError(f"tasks = {tasks} leaves nothing to check; give 1 or more.")
    env = make_env(name, **(options or {}))
    episodes = right_episodes(env, tasks, seed)
    asked = _without_opening(name, options or {}, episodes, deadline_s) or episodes
    verifier = EnvVerifier(name, options or {}, asked)
    pairs = [(episode.task.answer, episode.response, episode.task.prompt) for episode in asked]
    report = check_verifier(
        verifier,
        pairs,
        judges=judges,
        last_counts=env.judged == "program",
        deadline_s=deadline_s,
        seed=seed,
        name=name,
    )
    return replace(report, rows=(_demonstrations(env, episodes), *report.rows))


def _without_opening(
    name: str, options: dict[str, Any], episodes: list[RightEpisode], deadline_s: float
) -> list[RightEpisode]:
    """The episodes without what was done before the answer, where that plays no part: all are CORRECT so, too."""
    bare = [replace(episode, actions=(episode.response,)) for episode in episodes]
    asker = WatchedThread(EnvVerifier(name, options, bare))
    try:
        for episode in bare:
            call = Call("gold", episode.task.answer, episode.response, episode.task.prompt)
            if asker.ask(call, deadline_s).outcome is not Outcome.CORRECT:
                return []
        return bare
    finally:
        asker.close()


def right_episodes(env: TextEnv, tasks: int, seed: int) -> list[RightEpisode]:
    """Episodes of tasks with different prompts, demonstrated ones if there are any; fewer where there are no more."""
    shown: dict[str, RightEpisode] = {}
    bare: dict[str, RightEpisode] = {}
    size = env.source.size
    for cursor in range(4 * tasks if size is None else min(size, 4 * tasks)):
        task = env.source.task(epoch_index(cursor, size, seed))
        try:
            actions = tuple(env.demonstrate(task, np.random.default_rng((seed, cursor))))
            shown.setdefault(task.prompt, RightEpisode(task, actions, True))
        except NoDemonstration:
            answer = task.answer if isinstance(task.answer, str) else json.dumps(task.answer, ensure_ascii=False)
            bare.setdefault(task.prompt, RightEpisode(task, (answer,), False))
        if len(shown) == tasks:
            break
    if not shown and not bare:
        raise EnvError("The task source is empty; give it at least one task.")
    return list((shown or bare).values())[:tasks]


def _demonstrations(env: TextEnv, episodes: list[RightEpisode]) -> CheckRow:
    """Whether the demonstrations end their episodes with an answer, when they are played step by step."""
    shown = [episode for episode in episodes if episode.demonstrated]
    if not shown:
        return CheckRow("demonstrations", "skipped", "There are none; the tasks' answers are taken as they stand.")
    for episode in shown:
        env.reset(seed=0, options={"task": episode.task})
        for number, action in enumerate(episode.actions, 1):
            _, _, terminated, truncated, info = env.step(action)
            last = number == len(episode.actions)
            if (terminated or truncated) != last or (last and info["stop_reason"] is not EnvStop.ANSWER):
                what = f"Action {number} of {len(episode.actions)} {'does not end' if last else 'ends'} the episode."
                fix = "let demonstrate() return actions of which the last, and no other, is the final answer."
                example = f"task {episode.task.id}, action {action[:200]!r}"
                return CheckRow("demonstrations", "failed", what, fix, example)
    return CheckRow("demonstrations", "passed", f"{len(shown)} demonstrations end with an answer.")
