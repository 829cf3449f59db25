"""check_env: the contract of a text environment as a suite that anyone runs on their own.

Invariant: whatever the environment does is in the report; and what is started to look at it is ended.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as check_gymnasium

from ..sandbox.check_report import CheckReport, CheckRow
from ..verifiers.attacks import INJECTIONS
from ..verifiers.verdict import InfrastructureError, Outcome
from .check import RightEpisode, check_env_verifier, right_episodes
from .errors import EnvError, NoDemonstration
from .registration import make_env
from .source import epoch_index
from .text_env import TextEnv
from .tool_call import render_call

START_S = 120.0
"""Longest time that another process may take to import what it needs and to play an opening."""
GONE_S = 15.0
_REPEATS = 5
_MALFORMED = (
    "",
    " \n\t",
    "<tool_call>",
    "<tool_call></tool_call>",
    "<tool_call>{</tool_call>",
    '<tool_call>{"name": 5}</tool_call>',
    '<tool_call>{"name": "no_such_tool", "arguments": {}}</tool_call>',
    '<tool_call>["name", "arguments"]</tool_call>' * 40,
    '<tool_call>{"name": "TOOL", "arguments": "text"}</tool_call>',
    '<tool_call>{"name": "TOOL", "arguments": {"no_such_argument": 1}}</tool_call>',
    '<tool_call>{"name": "TOOL", "arguments": {"ARGUMENT": [1, {"a": null}]}}</tool_call>',
    '<tool_call>{"name": "TOOL", "arguments": {"ARGUMENT": "\\ud800\\u0000"}}</tool_call>',
    '<tool_call>{"name": "TOOL", "arguments": {"ARGUMENT": "' + "9" * 100_000 + '"}}</tool_call>',
    "<TOOL>",
    "<TOOL></TOOL>",
    "<TOOL>\x00\ud800</TOOL>",
    "<TOOL>" + "(" * 50_000 + "</TOOL>",
    "[" * 50_000,
    "x" * 1_000_000,
    "\ud800\x00\x1b[31m\u202e",
)
"""Actions that are no answer and no call that can be run. TOOL, ARGUMENT: a tool of the environment, if it has one."""


def check_env(
    name: str,
    *,
    tasks: int = 8,
    seed: int = 0,
    deadline_s: float = 10.0,
    judges: bool = True,
    episodes_only: bool = False,
    options: dict[str, Any] | None = None,
) -> CheckReport:
    """Whether the environment registered as `name` keeps its contract, and the verifier in it, see `check_verifier`.

    tasks: how many of its tasks are looked at. seed: of what is drawn. deadline_s: longest time of one step. judges:
    False where it gives scores and nothing is CORRECT. episodes_only: leave out the contract of the verifier, which
    takes long where a verdict does. options: of the environment. Raises EnvError where there is no such environment or
    it has no tasks; whatever the environment does is in the report.
    """
    options = options or {}
    if tasks < 1:
        raise EnvError(f"tasks = {tasks} leaves nothing to check; give 1 or more.")
    with contextlib.closing(make_env(name, **options)) as env:
        episodes = right_episodes(env, tasks, seed)
        checks: dict[str, Callable[[], CheckRow]] = {
            "gymnasium": lambda: _gymnasium(env, seed),
            "tasks": lambda: _tasks(name, options, env, tasks, seed),
            "steps": lambda: _repeated(name, options, episodes, deadline_s),
            "malformed": lambda: _malformed(env, episodes, deadline_s),
            "end": lambda: _after(env),
            "cleanup": lambda: _cleanup(name, options, episodes),
            "killed": lambda: _killed(name, options, episodes),
        }
        by_words = env.judged != "state"
        if judges and not by_words:
            checks |= {"gold": lambda: _gold(env, episodes), "words": lambda: _only_words(env, episodes)}
        rows = tuple(_row(check, ask) for check, ask in checks.items())
    if by_words and not episodes_only:
        verified = check_env_verifier(
            name, tasks=tasks, seed=seed, deadline_s=deadline_s, judges=judges, options=options
        )
        rows += verified.rows
    return CheckReport(name, rows)


def _row(name: str, ask: Callable[[], CheckRow]) -> CheckRow:
    try:
        return ask()
    except Exception as error:
        return _failed(name, _words(error), "let reset and step keep the interface of TextEnv, and raise nothing.")


def _passed(name: str, what: str) -> CheckRow:
    return CheckRow(name, "passed", what)


def _failed(name: str, what: str, fix: str, example: str = "") -> CheckRow:
    return CheckRow(name, "failed", what, fix, example)


def _is_correct(info: dict[str, Any]) -> bool:
    return info["verdict"] is not None and info["verdict"].outcome is Outcome.CORRECT


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _gymnasium(env: TextEnv, seed: int) -> CheckRow:
    """Gymnasium's own checker. It plays random texts."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_gymnasium(env, skip_render_check=True)
    except Exception as error:
        fix = "keep gymnasium.Env's interface; this is what gymnasium.utils.env_checker.check_env says."
        return _failed("gymnasium", _words(error), fix)
    return _passed("gymnasium", "Gymnasium's own checker finds nothing.")


def describe(name: str, options: dict[str, Any], tasks: int, seed: int) -> list[str]:
    """A checksum of each of some tasks and of its demonstration; the same in every process."""
    with contextlib.closing(make_env(name, **options)) as env:
        found = []
        for cursor in range(tasks if env.source.size is None else min(tasks, env.source.size)):
            task = env.source.task(epoch_index(cursor, env.source.size, seed))
            try:
                actions = env.demonstrate(task, np.random.default_rng((seed, cursor)), 0.5)
            except NoDemonstration:
                actions = []
            text = json.dumps([task.id, task.hash, actions])
            found.append(hashlib.sha256(text.encode()).hexdigest())
        return found


def _tasks(name: str, options: dict[str, Any], env: TextEnv, tasks: int, seed: int) -> CheckRow:
    """Whether tasks and demonstrations are the same in another process, and a seed starts the same episode again."""
    fix = "draw from the generator that is passed in, alone; sort sets; let tasks be pure functions of their index."
    starts = [env.reset(seed=seed)[1]["task_id"] for _ in range(2)]
    if starts[0] != starts[1]:
        example = f"reset(seed={seed}) gave {starts[0]}, then {starts[1]}"
        return _failed("tasks", "The same seed does not start the same episode.", fix, example)
    here = describe(name, options, tasks, seed)
    for hash_seed in ("1", "2"):
        code = f"print(json.dumps(check_env.describe({name!r}, json.loads({json.dumps(options)!r}), {tasks}, {seed})))"
        done = _other_process(code, PYTHONHASHSEED=hash_seed)
        try:
            said, complaint = done.communicate(timeout=START_S)
        except subprocess.TimeoutExpired:
            done.kill()
            done.communicate()
            return _failed("tasks", f"Another process took more than {START_S:g} s for {tasks} tasks.", fix)
        if done.returncode != 0:
            last = (complaint.strip().splitlines() or ["?"])[-1][:300]
            return CheckRow("tasks", "skipped", f"Another process cannot make the environment ({last}).")
        there = json.loads(said.strip().splitlines()[-1])
        if here != there:
            number = next(index for index, pair in enumerate(zip(here, there, strict=True)) if pair[0] != pair[1])
            what = "Another process has other tasks or demonstrations."
            return _failed("tasks", what, fix, f"the task at place {number} of seed {seed}")
    return _passed("tasks", f"{len(here)} tasks and their demonstrations are the same in other processes.")


def _repeated(name: str, options: dict[str, Any], episodes: Sequence[RightEpisode], deadline_s: float) -> CheckRow:
    """Whether the same actions have the same effect in two environments, each step in time."""
    fix = "let observations, rewards and verdicts depend on the task and the actions alone."
    with contextlib.closing(make_env(name, **options)) as one, contextlib.closing(make_env(name, **options)) as other:
        for episode in episodes:
            try:
                histories = [_play(env, episode, deadline_s) for env in (one, other, one)]
            except _Late as late:
                fix = "bound the work of tools and of verify, or raise deadline_s."
                return _failed("steps", f"A step took {late} s, more than {deadline_s:g}.", fix, episode.task.id)
            except Exception as error:
                fix = "let no right action raise; raise ToolError in a tool for what the agent should be told."
                return _failed("steps", _words(error), fix, f"task {episode.task.id}")
            if histories[0] != histories[1] or histories[0] != histories[2]:
                return _failed("steps", "The same actions have another effect.", fix, f"task {episode.task.id}")
    what = f"{len(episodes)} episodes, played three times in two environments, went the same way, each step in time."
    return _passed("steps", what)


class _Late(Exception):
    """How long a step took."""


def _play(env: TextEnv, episode: RightEpisode, deadline_s: float) -> list[Any]:
    observation, info = env.reset(seed=0, options={"task": episode.task})
    history: list[Any] = [observation, info["task_id"], info["messages"]]
    for action in episode.actions:
        started = time.monotonic()
        observation, reward, terminated, truncated, info = env.step(action)
        if time.monotonic() - started > deadline_s:
            raise _Late(f"{time.monotonic() - started:.1f}")
        verdict = info["verdict"].outcome if info["verdict"] is not None else None
        history.append([observation, reward, terminated, truncated, info["messages"], info["rewards"], verdict])
        if terminated or truncated:
            break
    return history


def _malformed(env: TextEnv, episodes: Sequence[RightEpisode], deadline_s: float) -> CheckRow:
    """Whether actions that make no sense are answered or judged, and never raise."""
    tool = env.tools[0] if env.tools else None
    argument = next(iter(tool.parameters["properties"]), "a") if tool else "a"
    actions = [one.replace("TOOL", tool.name if tool else "tool").replace("ARGUMENT", argument) for one in _MALFORMED]
    for one in env.tools:
        actions.append(render_call(one, dict.fromkeys(one.parameters["properties"], "a\0b"), env.dialect))
    for action in actions:
        env.reset(seed=0, options={"task": episodes[0].task})
        started = time.monotonic()
        try:
            info = env.step(action)[4]
        except InfrastructureError as error:
            return _failed("malformed", f"The infrastructure failed: {error}", "See to it.", action[:200])
        except Exception as error:
            fix = "answer what makes no sense with an observation that says so; raise ToolError in tools."
            return _failed("malformed", f"An action raised {_words(error)}.", fix, repr(action[:200]))
        took = time.monotonic() - started
        if took > deadline_s:
            return _failed("malformed", f"A step took {took:.1f} s.", "Bound the work.", repr(action[:200]))
        if _is_correct(info):
            fix = "pay for right answers alone."
            return _failed("malformed", "An action that makes no sense is paid for.", fix, repr(action[:200]))
    return _passed("malformed", f"{len(actions)} senseless actions are answered and not paid for.")


def _after(env: TextEnv) -> CheckRow:
    """Whether an episode that is over stays over."""
    env.reset(seed=0)
    for _ in range(env.max_turns + 1):
        _, _, terminated, truncated, _ = env.step("no answer")
        if terminated or truncated:
            break
    else:
        return _failed("end", "An episode has more turns than max_turns.", "Count every step as a turn.")
    try:
        env.step("no answer")
    except ResetNeeded:
        return _passed("end", "An episode ends after max_turns at the latest, and then takes no step.")
    return _failed("end", "An episode that is over takes another step.", "Call super().step and super().reset.")


def _standing() -> tuple[int, int, int]:
    gc.collect()
    fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return fds, threading.active_count(), len(_descendants(os.getpid()))


def _cleanup(name: str, options: dict[str, Any], episodes: Sequence[RightEpisode]) -> CheckRow:
    """Whether environments that were closed, some in the middle of an episode, leave nothing behind."""

    def once(number: int) -> None:
        episode = episodes[number % len(episodes)]
        with contextlib.closing(make_env(name, **options)) as env:
            env.reset(seed=0, options={"task": episode.task})
            for action in episode.opening if number % 2 else episode.actions:
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    break

    for number in range(2):
        once(number)  # what is shared is there now
    before = _standing()
    for number in range(_REPEATS * 2):
        once(number)
    deadline = time.monotonic() + GONE_S
    while any(a > b for a, b in zip(_standing(), before, strict=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [a - b for a, b in zip(_standing(), before, strict=True)]
    for count, what in zip(left, ("descriptors", "threads", "processes"), strict=True):
        if count >= _REPEATS:
            fix = "end in close(), and at reset, what an episode has started."
            return _failed("cleanup", f"{_REPEATS * 2} closed environments left {count} {what}.", fix)
    return _passed("cleanup", "Closed environments leave no process, thread or descriptor behind.")


def _killed(name: str, options: dict[str, Any], episodes: Sequence[RightEpisode]) -> CheckRow:
    """Whether a process that is killed in the middle of an episode leaves no process behind."""
    if not os.path.isdir("/proc/self"):
        return CheckRow("killed", "skipped", "This system does not show its processes.")
    episode = max(episodes, key=lambda one: len(one.opening))
    code = (
        f"check_env.wait_in_episode({name!r}, json.loads({json.dumps(options)!r}), "
        f"json.loads({json.dumps([episode.task.to_json(), list(episode.opening)])!r}))"
    )
    process = _other_process(code)
    try:
        assert process.stdout is not None
        if "ready" not in process.stdout.readline():
            return CheckRow("killed", "skipped", "Another process cannot make the environment.")
        started = _descendants(process.pid)
    finally:
        process.kill()
        process.wait()  # and not for the end of its output, which what it has started may keep open
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    deadline = time.monotonic() + GONE_S
    while (left := [one for one in started if one in _all_processes()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left:
        fix = "let what is started end with its parent; Ludus's sandboxes do."
        return _failed("killed", f"A process that was killed left {len(left)} processes behind.", fix)
    return _passed("killed", "A process that is killed in the middle of an episode leaves none behind.")


def wait_in_episode(name: str, options: dict[str, Any], episode: list[Any]) -> None:
    """Play the opening of an episode, say so, and wait to be killed."""
    from .task import Task

    env = make_env(name, **options)
    env.reset(seed=0, options={"task": Task.from_json(episode[0])})
    for action in episode[1]:
        env.step(action)
    print("ready", flush=True)
    time.sleep(START_S)


def _other_process(code: str, **environment: str) -> subprocess.Popen[str]:
    places = json.dumps([str(place) for place in sys.path])
    begin = f"import json, sys; sys.path[:] = json.loads({places!r}); from ludus.envs import check_env; "
    variables = {**os.environ, "PYTHONSAFEPATH": "1", **environment}
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "ignore", "-c", begin + code]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, env=variables, text=True)


def _all_processes() -> dict[tuple[int, str], int]:
    """The parent of each process, by its number and when it began."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(folder.name), fields[19]] = int(fields[1])
    return found


def _descendants(pid: int) -> set[tuple[int, str]]:
    parents = _all_processes() if os.path.isdir("/proc/self") else {}
    found: set[tuple[int, str]] = set()
    while more := {one for one, parent in parents.items() if parent in {pid, *(n for n, _ in found)}} - found:
        found |= more
    return found


def _gold(env: TextEnv, episodes: Sequence[RightEpisode]) -> CheckRow:
    """Whether what the demonstrations do is right."""
    shown = [episode for episode in episodes if episode.demonstrated]
    for episode in shown:
        if _play(env, episode, float("inf"))[-1][-1] is not Outcome.CORRECT:
            return _failed("gold", "A demonstration is not CORRECT.", "Correct it, or verify.", episode.task.id)
    return _passed("gold", f"{len(shown)} demonstrations are CORRECT.")


def _only_words(env: TextEnv, episodes: Sequence[RightEpisode]) -> CheckRow:
    """Whether words are paid for where deeds are asked for."""
    words = ("Done.", *(episode.response for episode in episodes[:1]), *INJECTIONS, "x" * 100_000)
    for episode in episodes:
        for text in words:
            env.reset(seed=0, options={"task": episode.task})
            if _is_correct(env.step(text)[4]):
                fix = "judge what was done, by what stands there at the end."
                return _failed("words", "Words alone are CORRECT.", fix, f"task {episode.task.id}: {text[:100]!r}")
    return _passed("words", f"{len(words)} answers without a deed are not CORRECT.")
