"""An environment each part of whose contract can be broken, for test_check_env.py; found as a plug-in is."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from typing import Any

import gymnasium

from ludus import InfrastructureError, Verdict
from ludus.envs.source import ListSource, ProceduralSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.envs.tool import tool
from ludus.envs.tool_call import render_call

_COUNTER = itertools.count()


LEFT: list[int] = []
"""Descriptors that nobody has closed."""
WAITING: list[threading.Thread] = []
"""Threads that nobody has ended; `RELEASE` does."""
RELEASE = threading.Event()
SLEEP = "COUNTING_SLEEP"
"""The variable with the seconds that processes sleep, by which those that nobody has ended are found."""


class Count(TextEnv):
    """Say a number twice as large, after the tool has said it. flaw: which part of the contract is broken."""

    def __init__(self, flaw: str = "", max_turns: int = 4) -> None:
        self.flaw = flaw
        if flaw in ("words", "state"):
            self.judged = "state"  # type: ignore[misc]

        @tool
        def double(number: str) -> str:
            """Double a number."""
            if self.flaw == "steps":
                return f"{2 * int(number)} ({next(_COUNTER)})"
            if self.flaw == "nul" and "\0" in number:
                raise InfrastructureError("an accident")
            if self.flaw == "late" and number == "31":
                time.sleep(0.5)
            return str(2 * int(number))

        self.double = double
        self.kept: list[Any] = []
        numbers = [7, 12, 31, 45]
        tasks = [Task(f"count-{n}", f"Double {n}.", str(2 * n), {"number": n}) for n in numbers]
        source: Any = ListSource(tasks)
        if flaw == "tasks":
            source = ProceduralSource(lambda rng, index: Task("t", f"Double {hash(str(index))}.", "1", {"number": 1}))
        super().__init__(source, tools=(double,), max_turns=max_turns)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self.flaw == "starts" and options is None:
            options = {"index": next(_COUNTER) % 4}
        if self.flaw == "descriptors":
            LEFT.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(2))
        elif self.flaw == "threads":
            WAITING.append(threading.Thread(target=RELEASE.wait, args=(60,), daemon=True))
            WAITING[-1].start()
        elif self.flaw in ("processes", "killed"):
            self.kept.append(subprocess.Popen(["sleep", os.environ[SLEEP]]))
        return super().reset(seed=seed, options=options)

    def step(self, action: str) -> Any:
        if self.flaw == "raises" and "double" in action:
            raise RuntimeError("an accident")
        if self.flaw == "malformed" and len(action) > 10_000:
            raise RuntimeError("an accident")
        if self.flaw == "end":
            self._running = True
        if self.flaw == "gymnasium":
            return (*super().step(action)[:4], None)
        return super().step(action)

    def close(self) -> None:
        if self.flaw != "processes":
            for one in self.kept:
                if isinstance(one, subprocess.Popen):
                    one.kill()
                    one.wait()
        super().close()

    def verify(self, task: Task, response: str) -> Verdict:
        if self.flaw == "paid" and not response.strip():
            return Verdict.correct("")
        if self.flaw == "state":
            return Verdict.wrong("wrong")
        return Verdict.correct("right") if response == task.answer or self.flaw == "words" else Verdict.wrong("wrong")

    def demonstrate(self, task: Task, rng: Any, flaw_rate: float = 0.0) -> list[str]:
        return [render_call(self.double, {"number": str(task.data["number"])}, self.dialect), task.answer]


def register() -> None:
    """What the entry point calls."""
    gymnasium.register("counting/Count-v0", entry_point=Count, disable_env_checker=True, order_enforce=False)
