"""What Ray workers of the tests work with: a small model and environments that do as their tasks say."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

from ludus.agents.config import TinyModel
from ludus.agents.engine import Completion, Sampling
from ludus.agents.model import character_tokenizer
from ludus.agents.rollout import Arena, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.weights import Sent
from ludus.envs.source import ProceduralSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.trainers.ray_worker import Workplace, load_sent, serve_sent
from ludus.verifiers.verdict import Verdict

SHAPE = TinyModel(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64, initializer_range=0.2)
TOKENIZER = character_tokenizer()


class Obedient(TextEnv):
    """Three turns, in which it does what the task's data say.

    reach: makes such a file. wait_for: until there is such a file. kill: once, its own process, when there is no such
    file yet, which it makes. hang: for ever, in the verifier. die: always.
    """

    def __init__(self) -> None:
        super().__init__(ProceduralSource(lambda rng, i: Task(str(i), f"say {int(rng.integers(10))}", None)))

    def respond(self, task: Task, action: str) -> str | None:
        if "reach" in task.data:
            Path(task.data["reach"]).touch()
        wanted = task.data.get("wait_for")
        while wanted is not None and not Path(wanted).exists():
            time.sleep(0.01)
        mark = task.data.get("kill")
        if task.data.get("die") or (mark is not None and not Path(mark).exists()):
            if mark is not None:
                Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "more" if self.turn < 3 and not task.data.get("hang") else None

    def verify(self, task: Task, response: str) -> Verdict:
        while task.data.get("hang"):
            time.sleep(0.1)
        return Verdict.correct("a vowel") if set("aeiou") & set(response) else Verdict.wrong("no vowel")


class Fragile(TorchEngine):
    """Fails once in an episode whose id is "fail:FILE", when there is no such file yet, which it makes."""

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        mark = Path((session or "").removeprefix("fail:"))
        if session != str(mark) and not mark.exists():
            mark.touch()
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return await super().generate(token_ids, sampling, session)


def arenas() -> dict[str, Arena]:
    """The arenas of a worker and of its learner."""
    return {name: Arena.build(name, Obedient, TOKENIZER) for name in ("first", "second")}


def place(sent: Sent) -> Workplace:
    """A worker's engine and arenas."""
    model = load_sent(sent, "cpu")
    engine = Fragile(model, TOKENIZER, slots=32, max_length=200)
    rollout = Rollout(engine, arenas(), concurrency=32, step_deadline_s=3.0)
    return Workplace(rollout, partial(serve_sent, engine, model))
