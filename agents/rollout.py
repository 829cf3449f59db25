"""Rollout: episodes as coroutines over one engine.

Invariant: every episode asked for comes back, in the order asked, with its tokens exactly as the engine consumed and
produced them; an infrastructure failure comes back as an episode with `error` and no reward (tests/test_rollout.py).
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, Self, TypeVar

from ..envs.task import Message, Task
from ..envs.text_env import TextEnv, UnjudgedError
from ..sandbox.errors import LudusError
from ..verifiers.verdict import InfrastructureError, Verdict
from .daemon_threads import DaemonThreads
from .engine import NOT_ASKED, ChatCompletion, Completion, Sampling, StopReason, TokenEngine, Usage
from .renderer import Renderer
from .seeds import derive_seed
from .trajectory import Episode, Step, Trajectory

T = TypeVar("T")
PAUSED = "paused"
"""Why an episode stopped whose budget ended before it did."""


@dataclass(frozen=True)
class EpisodeRequest:
    """One episode to play.

    env: name of the arena. group: tries that share a baseline. seed: of this episode alone. budget: tokens that may be
    sampled now; where they end before the episode does, it comes back with stop_reason PAUSED. begun: such an episode,
    to be gone on with: its actions are given to the environment again, which has to answer as it did.
    """

    id: str
    env: str
    task: Task
    group: str
    seed: int
    sampling: Sampling
    budget: int | None = None
    begun: Episode | None = None


@dataclass
class Arena:
    """An environment as rollouts use it: a factory, the renderer of its conversations, instances waiting for reuse.

    renderer: None where a chat endpoint plays, which renders by itself.
    first, stop: the arena's tasks are those of the environment's source from index `first` to before `stop`.
    """

    name: str
    make: Callable[[], TextEnv]
    renderer: Renderer | None
    idle: list[TextEnv] = field(default_factory=list)
    first: int = 0
    stop: int | None = None

    @classmethod
    def build(cls, name: str, make: Callable[[], TextEnv], tokenizer: Any, on_rewrite: Any = "refuse") -> Arena:
        """Make the first instance and the renderer that its tools call for."""
        env = make()
        roles = ("tool", "user") if env.tools else ("user",)
        return cls(name, make, Renderer(tokenizer, tools=env.tool_schemas, roles=roles, on_rewrite=on_rewrite), [env])

    @classmethod
    def for_chat(cls, name: str, make: Callable[[], TextEnv]) -> Arena:
        """An arena in which a chat endpoint plays; the first instance is made."""
        return cls(name, make, None, [make()])

    @property
    def token_renderer(self) -> Renderer:
        """The renderer. ValueError where the arena was made without."""
        if self.renderer is None:
            raise ValueError(f"The arena {self.name} has no renderer; make it with Arena.build.")
        return self.renderer

    @property
    def env(self) -> TextEnv:
        """An instance to ask about tasks; it may be playing at the same time."""
        if not self.idle:
            self.idle.append(self.make())
        return self.idle[0]

    @property
    def size(self) -> int | None:
        """How many tasks there are, None where they never end."""
        size = self.env.source.size
        return None if size is None else (size if self.stop is None else self.stop) - self.first

    def task(self, index: int) -> Task:
        """The task at `index`."""
        return self.ask("making a task", lambda: self.env.source.task(self.first + index))

    def ask(self, doing: str, call: Callable[[], T]) -> T:
        """What environment code returns outside an episode. EnvCodeError where it raises anything of its own."""
        try:
            return call()
        except LudusError:
            raise
        except Exception as error:
            raise EnvCodeError(
                f"The environment {self.name} raised {type(error).__name__} while {doing}: {error}; correct its code."
            ) from error


class EnvCodeError(LudusError):
    """An environment's own code failed where no episode is to blame."""


class EpisodesFailedError(LudusError):
    """Not one episode could be judged."""

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> EpisodesFailedError:
        """One sentence that says why the first of them failed."""
        first = episodes[0]
        if first.error is None:
            return cls(
                f"No prompt of {first.env} leaves room for an answer; raise engine.max_length, or serve the model with"
                " a longer context, or shorten the prompts."
            )
        return cls(
            f"All {len(episodes)} episodes of {first.env} failed, the first because "
            f"{first.error.removeprefix(NOT_ASKED)}; "
            "see to that and start again."
        )


def failed_episode(request: EpisodeRequest, error: str) -> Episode:
    """The episode of a request that the infrastructure failed before anything was sampled."""
    record = _Record(request)
    record.fail(InfrastructureError(error))
    return record.episode(0.0)


class Player(Protocol):
    """What plays episodes for trainers and evaluations: a Rollout in this process, or a pool of them elsewhere."""

    arenas: dict[str, Arena]

    @property
    def usage(self) -> Usage | None:
        """What was used of an endpoint; None where an engine of one's own plays."""
        ...

    @property
    def stopped(self) -> str | None:
        """Why nothing more is played; None while it goes on."""
        ...

    def run(
        self, requests: Sequence[EpisodeRequest], on_episode: Callable[[Episode], None] | None = None
    ) -> list[Episode]:
        """Play all requests and return their episodes in the same order."""
        ...

    def close(self) -> None:
        """Close environments, and what else was opened to play."""
        ...


class EpisodeDriver(ABC):
    """Plays episodes of several arenas, `concurrency` at a time. How turns are made is up to its subclasses.

    step_deadline_s: seconds that one reset or step of an environment may take; later it counts as an infrastructure
    failure. Use as a context manager: leaving it closes environments.
    """

    def __init__(self, arenas: dict[str, Arena], *, concurrency: int = 64, step_deadline_s: float = 60.0) -> None:
        self.arenas = arenas
        self.concurrency = concurrency
        self.step_deadline_s = step_deadline_s
        self._runner = asyncio.Runner()
        self._threads = DaemonThreads("ludus-env")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close environments and the event loop."""
        try:
            for arena in self.arenas.values():
                while arena.idle:
                    arena.ask("closing", arena.idle.pop().close)
        finally:
            self._threads.close()
            self._runner.close()

    def run(
        self, requests: Sequence[EpisodeRequest], on_episode: Callable[[Episode], None] | None = None
    ) -> list[Episode]:
        """Play all requests and return their episodes in the same order. For callers without an event loop."""
        return self._runner.run(self.play(requests, on_episode))

    def await_(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run any coroutine on this rollout's event loop."""
        return self._runner.run(coroutine)

    async def play(
        self, requests: Sequence[EpisodeRequest], on_episode: Callable[[Episode], None] | None = None
    ) -> list[Episode]:
        """Play all requests, `concurrency` at a time, and return their episodes in the same order."""
        episodes: list[Episode | None] = [None] * len(requests)
        todo = iter(enumerate(requests))

        async def worker() -> None:
            for index, request in todo:
                episode = await self.episode(request)
                episodes[index] = episode
                if on_episode is not None:
                    on_episode(episode)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrency, len(requests))):
                    group.create_task(worker())
        except BaseExceptionGroup as errors:  # callers expect the error itself, such as a TemplateError
            raise errors.exceptions[0] from None
        return [episode for episode in episodes if episode is not None]

    async def episode(self, request: EpisodeRequest) -> Episode:
        """Play one episode. Failures of the environment or engine end it with `error`; bad templates raise."""
        arena = self.arenas[request.env]
        start = time.monotonic()
        record = _Record(request)
        if self.stopped is not None:
            record.fail(InfrastructureError(f"{NOT_ASKED}{self.stopped}"))
            return record.episode(0.0)
        env: TextEnv | None = None
        reusable = True
        try:
            env = arena.idle.pop() if arena.idle else _guarded(arena.make)
            await self._conversation(arena, env, record)
        except (InfrastructureError, TimeoutError) as error:
            record.fail(error)
            reusable = not isinstance(error, TimeoutError)
        except asyncio.CancelledError:
            reusable = False
            raise
        finally:
            if env is not None and reusable:
                arena.idle.append(env)
            elif env is not None:
                # It may hang here, too, so nothing waits for it.
                threading.Thread(target=partial(_guarded, env.close), name="ludus-close", daemon=True).start()
        return record.episode(time.monotonic() - start)

    @property
    def usage(self) -> Usage | None:
        """What was used of an endpoint; None where an engine of one's own plays."""
        return None

    @property
    def stopped(self) -> str | None:
        """Why nothing more is played; None while it goes on."""
        return None

    @abstractmethod
    async def _conversation(self, arena: Arena, env: TextEnv, record: _Record) -> None:
        """Play the episode to its end, into the record."""

    async def _open(self, env: TextEnv, record: _Record) -> None:
        """Reset the environment to the task of the episode."""
        request = record.request
        _, info = await self._off_loop(
            lambda: env.reset(seed=derive_seed(request.seed, "env") % 2**31, options={"task": request.task})
        )
        record.messages += info["messages"]

    async def _step(self, env: TextEnv, record: _Record) -> list[Message] | None:
        """Give the environment the last message; the messages that answer it, None where that was the end."""
        action = record.messages[-1]["content"]
        _, reward, terminated, truncated, info = await self._off_loop(partial(record.timed, partial(env.step, action)))
        record.earn(reward, info)
        if terminated or truncated:
            record.end(terminated, info.get("stop_reason"))
            return None
        messages: list[Message] = info["messages"]
        record.messages += messages
        return messages

    async def _off_loop(self, call: Callable[[], T]) -> T:
        """Run environment code in a thread, under the deadline; what it raises is an infrastructure failure."""
        future = self._threads.submit(partial(_guarded, call))
        try:
            # Not asyncio.wait_for, which before Python 3.12 swallows a cancellation that meets the result.
            async with asyncio.timeout(self.step_deadline_s):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise TimeoutError(f"the environment took longer than {self.step_deadline_s:g} s") from error


class Rollout(EpisodeDriver):
    """Plays episodes on one engine, token for token."""

    def __init__(
        self,
        engine: TokenEngine,
        arenas: dict[str, Arena],
        *,
        concurrency: int = 64,
        step_deadline_s: float = 60.0,
    ) -> None:
        super().__init__(arenas, concurrency=concurrency, step_deadline_s=step_deadline_s)
        self.engine = engine

    async def _conversation(self, arena: Arena, env: TextEnv, record: _Record) -> None:
        try:
            await self._open(env, record)
            await self._turns(env, record, arena.token_renderer)
        finally:
            self.engine.release(record.request.id)
        if arena.token_renderer.append_only and record.stop_reason != PAUSED:
            arena.token_renderer.check_episode(record.messages)

    async def _turns(self, env: TextEnv, record: _Record, renderer: Renderer) -> None:
        tokens, rewritten = renderer.open(record.messages), False
        while True:
            held = 0 if rewritten else len(record.token_ids)
            if held + len(tokens) >= getattr(self.engine, "max_length", 2**31):
                return record.truncate("context", env.cut(acted=False))
            if rewritten:
                record.new_segment()
            record.observe(tokens)
            reason = await self._turn(record, renderer)
            if reason is None:
                env.cut(acted=True)
                return record.pause()
            if reason not in (StopReason.END, StopReason.STOP):
                return record.truncate(reason.value, env.cut(acted=True))
            messages = await self._step(env, record)
            if messages is None:
                return None
            rewritten = not renderer.append_only
            if rewritten:
                tokens = renderer.open(record.messages)
            else:
                tokens = renderer.append(messages, reason is StopReason.END)

    async def _turn(self, record: _Record, renderer: Renderer) -> StopReason | None:
        """One turn of the policy, on from where it was paused; None where the budget ends before the turn does."""
        request, past = record.request, record.past_turn()
        while True:
            begun = () if past is None else past.token_ids
            prompt = [*record.token_ids, *begun]
            left = request.sampling.max_tokens - len(begun)
            full = len(prompt) >= getattr(self.engine, "max_length", 2**31)
            if past is not None and (past.complete or left <= 0 or full):
                record.act(past, renderer.text(begun))
                if not past.complete:
                    return StopReason.LENGTH if left <= 0 else StopReason.CONTEXT
                return StopReason.END if begun[-1] == renderer.end_id else StopReason.STOP
            limit = left if request.budget is None else min(left, request.budget - record.fresh)
            if limit <= 0:
                return None
            place = (record.turn, len(begun)) if begun else (record.turn,)
            seed = derive_seed(request.seed, *place)
            sampling = replace(request.sampling, seed=seed, max_tokens=limit, begun=begun)
            completion = await self.engine.generate(prompt, sampling, session=request.id)
            record.fresh += len(completion.token_ids)
            record.route(completion.experts)
            turn = _Turn.of(completion, past)
            if completion.stop_reason is not StopReason.INTERRUPTED:
                break
            past = replace(turn, complete=False) if turn.token_ids else None
        record.act(turn, renderer.text(turn.token_ids))
        return None if completion.stop_reason is StopReason.LENGTH and limit < left else completion.stop_reason


def _guarded(call: Callable[[], T]) -> T:
    """Environment code: whatever it raises is an infrastructure failure."""
    try:
        return call()
    except InfrastructureError:
        raise
    except BaseException as error:
        raise InfrastructureError(f"the environment raised {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class _Turn:
    """What the policy sampled in one turn. complete: nothing more is to be sampled in it."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: tuple[int, ...]
    kept: tuple[tuple[int, ...] | None, ...] | None
    complete: bool = True

    @classmethod
    def of(cls, completion: Completion, past: _Turn | None) -> _Turn:
        """A completion, behind what was sampled of its turn before."""
        count = len(completion.token_ids)
        kept: tuple[tuple[int, ...] | None, ...] | None = completion.kept
        found = cls(completion.token_ids, completion.logprobs, (completion.version,) * count, kept)
        if past is None:
            return found
        parts = ((past.kept or (None,) * len(past.token_ids)), (kept or (None,) * count))
        return cls(
            past.token_ids + found.token_ids,
            past.logprobs + found.logprobs,
            past.versions + found.versions,
            None if past.kept is None and kept is None else parts[0] + parts[1],
        )

    @classmethod
    def all_of(cls, episode: Episode) -> list[_Turn]:
        """The turns of a paused episode; the last is not complete where it ended within."""
        turns = []
        for path in episode.trajectories:
            for step in path.steps:
                part = slice(step.start, step.end)
                kept = None if path.kept is None else path.kept[part]
                turns.append(cls(path.token_ids[part], path.logprobs[part], path.versions[part], kept))
        if turns and episode.messages[-1]["role"] == "assistant":
            turns[-1] = replace(turns[-1], complete=False)
        return turns


class _Record:
    """What happened in one episode so far. fresh: tokens sampled now, not before a pause."""

    def __init__(self, request: EpisodeRequest) -> None:
        self.request = request
        self.past = [] if request.begun is None else _Turn.all_of(request.begun)
        self.fresh = 0
        self.messages: list[Message] = []
        self.replies: list[ChatCompletion] = []
        self.finished: list[Trajectory] = []
        self.turn = 0
        self.reward = 0.0
        self.rewards: dict[str, float] = {}
        self.verdict: Verdict | None = None
        self.terminated = self.truncated = False
        self.error: str | None = None
        self.stop_reason = ""
        self.step_seconds = self.verify_seconds = 0.0
        self._clear()

    def _clear(self) -> None:
        self.token_ids: list[int] = []
        self.mask: list[bool] = []
        self.logprobs: list[float] = []
        self.versions: list[int] = []
        self.kept: list[tuple[int, ...] | None] = []
        self.truncates = False
        self.steps: list[Step] = []
        begun = self.request.begun
        before = () if begun is None else begun.trajectories[len(self.finished) : len(self.finished) + 1]
        self.experts: list[bytes | None] = [one for path in before for one in path.experts or ()]

    def route(self, experts: Sequence[bytes] | None) -> None:
        """Keep the experts of tokens of which none are known: those with which the policy went on first."""
        for place, one in enumerate(experts or ()):
            if place >= len(self.experts):
                self.experts.append(one)
            elif self.experts[place] is None:
                self.experts[place] = one

    def observe(self, tokens: Sequence[int]) -> None:
        """Append tokens that the policy did not sample."""
        self.token_ids += tokens
        self.mask += [False] * len(tokens)
        self.logprobs += [0.0] * len(tokens)
        self.versions += [-1] * len(tokens)
        self.kept += [None] * len(tokens)

    def past_turn(self) -> _Turn | None:
        """What was sampled of the coming turn before a pause. InfrastructureError where it followed other tokens."""
        begun = self.request.begun
        if begun is None or self.turn >= len(self.past):
            return None
        before = [step for path in begun.trajectories for step in path.steps][self.turn].start
        if list(begun.trajectories[len(self.finished)].token_ids[:before]) != self.token_ids:
            raise InfrastructureError(
                f"{self.request.env} answered the same actions otherwise than before a pause; unset"
                " policy.partial_tokens"
            )
        return self.past[self.turn]

    def act(self, turn: _Turn, text: str) -> None:
        """Append what the policy sampled."""
        start, count = len(self.token_ids), len(turn.token_ids)
        self.token_ids += turn.token_ids
        self.mask += [True] * count
        self.logprobs += turn.logprobs
        self.versions += turn.versions
        self.kept += turn.kept or [None] * count
        self.truncates |= turn.kept is not None
        self.steps.append(Step(start, start + count, 0.0))
        self.messages.append(Message(role="assistant", content=text))
        self.turn += 1

    def reply(self, completion: ChatCompletion, text: str) -> None:
        """Append what a chat endpoint answered, as the text that the environment reads."""
        self.replies.append(completion)
        self.steps.append(Step(0, 0, 0.0))
        self.messages.append(Message(role="assistant", content=text))
        self.turn += 1

    def timed(self, step: Callable[[], T]) -> T:
        """Call one step of the environment and keep how long it took. In the thread, so that no queue counts."""
        start = time.monotonic()
        try:
            return step()
        finally:
            self.step_seconds = time.monotonic() - start

    def earn(self, reward: float, info: dict[str, Any]) -> None:
        """Book what the environment paid for the last action."""
        named = dict(info.get("rewards") or {})
        self.steps[-1] = replace(self.steps[-1], reward=float(reward), rewards=named)
        self.reward += float(reward)
        for name, value in named.items():
            self.rewards[name] = self.rewards.get(name, 0.0) + value
        if info.get("verdict") is not None:
            self.verdict = info["verdict"]
            self.verify_seconds += self.step_seconds

    def new_segment(self) -> None:
        """Begin another trajectory, because the template rewrites what came before."""
        self.finished.append(self._trajectory())
        self._clear()

    def truncate(self, reason: str, shaping: float) -> None:
        """End before the environment does. shaping: see `TextEnv.cut`."""
        self.truncated, self.stop_reason = True, reason
        if shaping and self.steps:
            last = self.steps[-1]
            named = {**last.rewards, "shaping": last.rewards.get("shaping", 0.0) + shaping}
            self.steps[-1] = replace(last, reward=last.reward + shaping, rewards=named)
            self.reward += shaping
            self.rewards["shaping"] = self.rewards.get("shaping", 0.0) + shaping

    def pause(self) -> None:
        """End for now, to be gone on with."""
        self.truncated, self.stop_reason = True, PAUSED

    def end(self, terminated: bool, reason: str | None) -> None:
        self.terminated, self.truncated = terminated, not terminated
        self.stop_reason = reason or ("answered" if terminated else "truncated")

    def fail(self, error: BaseException) -> None:
        self.error, self.stop_reason = str(error) or type(error).__name__, "error"
        self.terminated = self.truncated = False
        self.verdict = None
        if isinstance(error, UnjudgedError):
            self.verdict = error.verdict
            self.verify_seconds += self.step_seconds

    def _trajectory(self) -> Trajectory:
        count = len(self.token_ids)
        experts = tuple([*self.experts, *[None] * count][:count])
        return Trajectory(
            token_ids=tuple(self.token_ids),
            mask=tuple(self.mask),
            logprobs=tuple(self.logprobs),
            versions=tuple(self.versions),
            steps=tuple(self.steps),
            kept=tuple(self.kept) if self.truncates else None,
            experts=experts if any(experts) else None,
            temperature=self.request.sampling.temperature,
        )

    def episode(self, seconds: float) -> Episode:
        request = self.request
        if self.token_ids:
            self.finished.append(self._trajectory())
        return Episode(
            id=request.id,
            env=request.env,
            task_id=request.task.id,
            group=request.group,
            seed=request.seed,
            reward=None if self.error else self.reward,
            rewards=self.rewards,
            verdict=self.verdict,
            terminated=self.terminated,
            truncated=self.truncated,
            error=self.error,
            stop_reason=self.stop_reason,
            messages=tuple(self.messages),
            trajectories=tuple(self.finished),
            seconds=seconds,
            verify_seconds=self.verify_seconds,
            replies=tuple(self.replies),
        )
