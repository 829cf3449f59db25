"""TorchEngine: continuous batching over the slots of a KV cache, in plain PyTorch.

Invariant: what a request samples depends on the weights, its tokens and its seed alone; arrival order, slot and company
change nothing (tests/test_torch_engine.py).

A conversation that grows turn by turn keeps its slot between turns. Where there are more conversations than slots, the
one idle for longest is copied out of its slot and copied back later: nothing is computed twice, and no bit changes.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..verifiers.repetition import LoopDetector
from .decoder import MIN_ROWS, SUMMED, Decoder
from .engine import Completion, EngineError, Sampling, StopReason, check_request
from .sampler import kept_tokens, sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREFILL_TOKENS = {"cpu": 1024}
"""Padded tokens in one prefill pass, by type of device, so that activations stay in a CPU's caches; else 16,384."""


@dataclass(eq=False)
class _Session:
    """A conversation: the tokens whose keys and values are cached, in a slot, copied out, or nowhere yet."""

    cached: list[int] = field(default_factory=list)
    slot: int | None = None
    saved: Tensor | None = None
    busy: bool = False
    last_used: int = 0


@dataclass(eq=False)
class _Request:
    tokens: list[int]
    sampling: Sampling
    session: _Session
    keep: bool
    future: asyncio.Future[Completion]
    generator: torch.Generator
    limit: int
    deadline: float | None
    loop: LoopDetector | None
    started: int = 0
    kept: list[tuple[int, ...]] = field(default_factory=list)


class TorchEngine:
    """Serves `generate` calls of many coroutines of one event loop from one model in this process.

    model: a causal language model of the Qwen2 family. tokenizer: only to find where a stop sequence ends.
    slots: sequences decoded together. max_length: tokens of the longest sequence, prompt included. dtype: of the
    engine's own copy of the weights (float32 on CPU and bfloat16 on GPUs if not given). exact: whether it computes in
    the trainer's precision, as on a CPU; on a GPU both round to bfloat16, each in its own order.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        slots: int = 64,
        max_length: int = 512,
        dtype: torch.dtype | None = None,
    ) -> None:
        device = next(model.parameters()).device
        self.decoder = Decoder(
            model, slots, max_length, dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        )
        self.exact = device.type == "cpu" and self.decoder.dtype == next(model.parameters()).dtype
        self.tokenizer = tokenizer
        self.slots = self.decoder.slots
        self.max_length = max_length
        self.version = 0
        self.end_id: int = tokenizer.eos_token_id
        self.generated_tokens = 0
        self._sessions: dict[str, _Session] = {}
        self._waiting: deque[_Request] = deque()
        self._ready: list[_Request] = []
        self._running: dict[int, _Request] = {}
        self._free = list(range(self.slots))[::-1]
        self._owner: dict[int, _Session] = {}
        self._clock = itertools.count()
        self._loop_task: asyncio.Task[None] | None = None
        self._patience = 0
        self._interrupted = False
        self._ticks = 0
        device = self.decoder.device
        self._token = torch.zeros(self.slots, dtype=torch.long, device=device)
        self._length = torch.zeros(self.slots, dtype=torch.long, device=device)
        self._sampled = torch.zeros(self.slots, dtype=torch.long, device=device)
        self._limit = torch.zeros(self.slots, dtype=torch.long, device=device)
        self._active = torch.zeros(self.slots, dtype=torch.bool, device=device)
        self._temperature = torch.ones(self.slots, device=device)
        self._top_p = torch.ones(self.slots, device=device)
        self._top_k = torch.zeros(self.slots, dtype=torch.long, device=device)
        # One column more than can be sampled: what idle rows compute goes there.
        self._uniforms = torch.zeros(self.slots, max_length + 1, dtype=torch.float64, device=device)
        self._out_tokens = torch.zeros(self.slots, max_length + 1, dtype=torch.long, device=device)
        self._out_logprobs = torch.zeros(self.slots, max_length + 1, device=device)
        self._rows = self.decoder.rows
        self._longest = 0
        self._stop_ends: dict[tuple[str, ...], frozenset[int]] = {}

    def interrupt(self) -> None:
        """End what runs with StopReason.INTERRUPTED and what was sampled so far; what waits begins anew by itself.

        For `load_weights` at once afterwards, before the event loop goes on.
        """
        for slot, request in list(self._running.items()):
            self._finish(slot, request, None if request.future.done() else StopReason.INTERRUPTED)
        self._longest = 0
        self._waiting.extendleft(reversed(self._ready))
        self._ready.clear()
        self._interrupted = True

    def load_weights(self, model: PreTrainedModel, version: int) -> None:
        """Copy new weights; everything cached under the old ones is forgotten.

        Refused while a request runs or waits, unless all were interrupted just before.
        """
        if self._running or self._ready or (self._waiting and not self._interrupted):
            raise EngineError("Weights cannot change while the engine generates; await its requests first.")
        self._interrupted = False
        self.decoder.load(model)
        self.version = version
        for session in list(self._owner.values()):
            self._evict(session, save=False)
        for session in (*self._sessions.values(), *(request.session for request in self._waiting)):
            session.cached, session.saved = [], None

    def probe(self, token_ids: Sequence[int]) -> list[float]:
        """The log-probability of each token but the first, in nats, at temperature 1, from the weights that it serves.

        Only where nothing is cached, as right after `load_weights`.
        """
        if self._owner:
            raise EngineError("A probe would overwrite what the engine keeps of conversations; load weights first.")
        found = []
        for place, (token, following) in enumerate(itertools.pairwise(token_ids)):
            logits = self.decoder.decode(
                torch.full_like(self._rows[:MIN_ROWS], token), torch.full_like(self._rows[:MIN_ROWS], place), place
            )
            found.append(float(torch.log_softmax(logits[0].float(), -1)[following]))
        return found

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        """Sample a continuation of `token_ids`.

        session: name of a growing conversation whose keys and values stay cached until `release`. Cancelling the
        awaiting task frees the slot at the next token.
        """
        check_request(token_ids, sampling, self.max_length)
        state = _Session() if session is None else self._sessions.setdefault(session, _Session())
        if state.busy:
            raise EngineError(f"Session {session!r} already has a generation under way; await it first.")
        state.busy = True
        loop = asyncio.get_running_loop()
        request = _Request(
            tokens=list(token_ids),
            sampling=sampling,
            session=state,
            keep=session is not None,
            future=loop.create_future(),
            generator=torch.Generator().manual_seed(sampling.seed % 2**63),
            limit=min(sampling.max_tokens, self.max_length - len(token_ids)),
            deadline=None if sampling.deadline_s is None else time.monotonic() + sampling.deadline_s,
            loop=_detector(sampling),
        )
        # Who still has a slot waits for nobody; behind others it would keep the slot they wait for.
        (self._waiting if state.slot is None else self._ready).append(request)
        if self._loop_task is None or self._loop_task.done() or self._loop_task.get_loop() is not loop:
            self._loop_task = loop.create_task(self._serve())
        try:
            return await request.future
        finally:
            if request.future.cancelled():
                self._drop(request)

    def release(self, session: str) -> None:
        """Forget a conversation and free its slot; unknown names are ignored."""
        state = self._sessions.pop(session, None)
        if state is None:
            return
        if not state.busy:
            self._evict(state, save=False)
        for request in (*self._waiting, *self._ready, *self._running.values()) if state.busy else ():
            request.keep = request.keep and request.session is not state

    # The serving loop

    async def _serve(self) -> None:
        try:
            while self._waiting or self._ready or self._running:
                self._interrupted = False
                self._step()
                await asyncio.sleep(0)
        except BaseException as error:
            for request in [*self._waiting, *self._ready, *self._running.values()]:
                if not request.future.done():
                    request.future.set_exception(
                        error if isinstance(error, Exception) else EngineError("The engine was stopped.")
                    )
                self._drop(request)
            self._waiting.clear()
            if not isinstance(error, Exception):
                raise

    def _step(self) -> None:
        self._admit()
        # A prefill costs about as much as decoding one token for everybody, so short continuations are gathered.
        waiting = len(self._ready)
        if waiting and (4 * waiting >= len(self._running) or self._patience >= 4):
            self._prefill()
            self._patience = 0
        else:
            self._patience += bool(waiting)
        if self._running:
            self._decode()

    def _admit(self) -> None:
        """Give slots to waiting requests, oldest first."""
        while self._waiting:
            request = self._waiting[0]
            if request.future.done():
                self._waiting.popleft()
                continue
            session = request.session
            if session.slot is None:
                if not self._free and not self._make_room():
                    return
                session.slot = self._free.pop()
                self._owner[session.slot] = session
                if session.saved is not None:
                    self.decoder.restore_slot(session.slot, session.saved)
                    session.saved = None
                self._length[session.slot] = len(session.cached)
            self._waiting.popleft()
            self._ready.append(request)

    def _make_room(self) -> bool:
        """Copy the session that has been idle for longest out of its slot."""
        idle = [session for session in self._owner.values() if not session.busy]
        if not idle:
            return False
        self._evict(min(idle, key=lambda session: session.last_used), save=True)
        return True

    def _evict(self, session: _Session, save: bool) -> None:
        if session.slot is None:
            return
        if save:
            session.saved = self.decoder.save_slot(session.slot, len(session.cached))
        del self._owner[session.slot]
        self._length[session.slot] = 0
        self._free.append(session.slot)
        self._free.sort(reverse=True)
        session.slot = None

    def _prefill(self) -> None:
        """Cache all tokens of the ready requests but their last, which the next decode step feeds."""
        todo: dict[tuple[int, bool], list[tuple[_Request, list[int]]]] = {}
        leaders: dict[tuple[int, ...], _Request] = {}
        followers: list[tuple[_Request, _Request]] = []
        for request in self._ready:
            session = request.session
            prefix = request.tokens[: len(session.cached)]
            if prefix != session.cached or len(prefix) >= len(request.tokens):
                session.cached = []
            chunk = request.tokens[len(session.cached) : -1]
            if chunk and not session.cached:
                leader = leaders.setdefault(tuple(chunk), request)
                if leader is not request:
                    followers.append((leader, request))
                    continue
            if chunk:
                size = -(-len(chunk) // MIN_ROWS) * MIN_ROWS
                todo.setdefault((size, len(session.cached) + size > SUMMED), []).append((request, chunk))
        for (size, _), rows in todo.items():
            most = max(1, PREFILL_TOKENS.get(self.decoder.device.type, 16384) // size)
            for first in range(0, len(rows), most):
                self._prefill_rows(rows[first : first + most], size)
        for leader, request in followers:
            assert leader.session.slot is not None and request.session.slot is not None
            self.decoder.copy_slot(leader.session.slot, request.session.slot, len(leader.tokens) - 1)
        self._start(self._ready)
        self._ready.clear()

    def _prefill_rows(self, rows: list[tuple[_Request, list[int]]], size: int) -> None:
        device = self.decoder.device
        slots = torch.tensor([request.session.slot for request, _ in rows], device=device)
        tokens = torch.tensor([chunk + [0] * (size - len(chunk)) for _, chunk in rows], device=device)
        starts = [len(request.session.cached) for request, _ in rows]
        self.decoder.prefill(slots, tokens, torch.tensor(starts, device=device), max(starts))

    def _start(self, requests: list[_Request]) -> None:
        """Let requests run whose tokens are cached but for the last."""
        slots = torch.tensor([request.session.slot for request in requests], device=self._rows.device)
        lengths = [len(request.tokens) - 1 for request in requests]
        most = max(request.limit for request in requests)
        uniforms = torch.zeros(len(requests), most, dtype=torch.float64)
        for row, request in enumerate(requests):
            assert request.session.slot is not None
            self._running[request.session.slot] = request
            request.session.cached = request.tokens[:-1]
            request.started = self._ticks
            torch.rand(request.limit, generator=request.generator, out=uniforms[row, : request.limit])
        self._longest = max(self._longest, *lengths)
        for state, values in (
            (self._token, [request.tokens[-1] for request in requests]),
            (self._length, lengths),
            (self._sampled, [0] * len(requests)),
            (self._limit, [request.limit for request in requests]),
            (self._active, [True] * len(requests)),
            (self._temperature, [request.sampling.temperature for request in requests]),
            (self._top_p, [request.sampling.top_p for request in requests]),
            (self._top_k, [request.sampling.top_k for request in requests]),
        ):
            state[slots] = torch.tensor(values, dtype=state.dtype, device=state.device)
        self._uniforms[slots, :most] = uniforms.to(self._uniforms.device)

    def _decode(self) -> None:
        """One token for every running request."""
        self._compact()
        top = max(self._running) + 1
        rows = min(max(-(-top // MIN_ROWS) * MIN_ROWS, MIN_ROWS), self.slots)
        active, sampled = self._active[:rows], self._sampled[:rows]
        logits = self.decoder.decode(self._token[:rows], self._length[:rows], self._longest)
        kept = self._kept(logits)
        where = torch.where(active, sampled, self.max_length)[:, None]
        uniforms = self._uniforms[:rows].gather(1, where)[:, 0]
        tokens, logprobs = sample(logits, uniforms, self._temperature[:rows], kept)
        self._out_tokens[:rows].scatter_(1, where, tokens[:, None])
        self._out_logprobs[:rows].scatter_(1, where, logprobs[:, None])
        self._token[:rows] = torch.where(active, tokens, self._token[:rows])
        self._length[:rows] += active
        sampled += active
        self._ticks += 1
        self._longest += 1
        if self._ticks % 16 == 0:
            self._longest = int(self._length[self._active].max())
        self.generated_tokens += len(self._running)
        ended = active & ((tokens == self.end_id) | (sampled >= self._limit[:rows]))
        self._end(ended.nonzero()[:, 0].tolist(), tokens)

    def _kept(self, logits: Tensor) -> Tensor | None:
        """What truncation keeps, noted for the requests that truncate; None where none does."""
        slots = [slot for slot, r in self._running.items() if r.sampling.top_p < 1 or r.sampling.top_k]
        if not slots:
            return None
        rows = logits.shape[0]
        kept = kept_tokens(logits, self._temperature[:rows], self._top_p[:rows], self._top_k[:rows])
        for slot in slots:
            self._running[slot].kept.append(tuple(kept[slot].nonzero()[:, 0].tolist()))
        return kept

    def _end(self, ended: list[int], tokens: Tensor) -> None:
        """Finish the requests in the slots `ended`, and those cancelled, out of time, at a stop, or in a loop."""
        loops = self._loops(tokens)
        for slot in ended:
            request = self._running[slot]
            if request.future.done():
                self._finish(slot, request, None)
            else:
                self._finish(slot, request, self._end_reason(request, slot, int(tokens[slot]), slot in loops))
        now = time.monotonic()
        for slot, request in list(self._running.items()):
            if request.future.done():
                self._finish(slot, request, None)
            elif request.deadline is not None and now > request.deadline:
                self._finish(slot, request, StopReason.DEADLINE)
            elif request.sampling.stop and self._stops(request, slot, int(tokens[slot])):
                self._finish(slot, request, StopReason.STOP)
            elif slot in loops:
                self._finish(slot, request, StopReason.LOOP)
        if not self._running:
            self._longest = 0

    def _loops(self, tokens: Tensor) -> set[int]:
        """The slots whose newest token closed a loop."""
        watched = {slot: request.loop for slot, request in self._running.items() if request.loop is not None}
        sampled = tokens.tolist() if watched else []
        return {slot for slot, loop in watched.items() if loop.push(sampled[slot])}

    def _end_reason(self, request: _Request, slot: int, token: int, in_loop: bool) -> StopReason:
        if token == self.end_id:
            return StopReason.END
        if request.sampling.stop and self._stops(request, slot, token):
            return StopReason.STOP
        if in_loop:
            return StopReason.LOOP
        return StopReason.LENGTH if request.limit == request.sampling.max_tokens else StopReason.CONTEXT

    def _stops(self, request: _Request, slot: int, token: int) -> bool:
        """Whether the text sampled so far ends with a stop sequence, or `token` completed one within it."""
        stops = request.sampling.stop
        if stops not in self._stop_ends:
            # A token may hold part of a character: it then decodes to U+FFFD.
            lasts = {"\ufffd", *(stop[-1] for stop in stops)}
            self._stop_ends[stops] = frozenset(
                index for index in range(len(self.tokenizer)) if lasts & set(self.tokenizer.decode([index]))
            )
        if token not in self._stop_ends[stops]:
            return False
        width = max(len(stop.encode()) for stop in stops) + 4
        count = self._ticks - request.started
        tail = [*request.sampling.begun[-width:], *self._out_tokens[slot, max(0, count - width) : count].tolist()]
        tail = tail[-width:]
        before, after = self.tokenizer.decode(tail[:-1]), self.tokenizer.decode(tail)
        return any(after.count(stop) > before.count(stop) for stop in stops)

    def _finish(self, slot: int, request: _Request, reason: StopReason | None) -> None:
        del self._running[slot]
        self._active[slot] = False
        session, count = request.session, self._ticks - request.started
        if reason is not None:
            tokens = self._out_tokens[slot, :count].tolist()
            session.cached = request.tokens + tokens[:-1]
            request.future.set_result(
                Completion(
                    token_ids=tuple(tokens),
                    logprobs=tuple(self._out_logprobs[slot, :count].tolist()),
                    stop_reason=reason,
                    version=self.version,
                    kept=tuple(request.kept) if request.kept else None,
                )
            )
        session.busy = False
        session.last_used = next(self._clock)
        if not request.keep or reason is None:
            session.cached = []
            self._evict(session, save=False)

    def _drop(self, request: _Request) -> None:
        """Free what a cancelled or failed request holds."""
        slot = request.session.slot
        if slot is not None and self._running.get(slot) is request:
            self._finish(slot, request, None)
        elif request.session.busy:
            if request in self._ready:
                self._ready.remove(request)
            request.session.busy = False
            self._evict(request.session, save=False)
            request.session.cached = []

    def _compact(self) -> None:
        """Move running sequences down into free slots where that saves MIN_ROWS rows or more."""
        top = max(self._running) + 1
        if top <= MIN_ROWS or len(self._owner) + MIN_ROWS > top or not self._free:
            return
        for slot in sorted(self._owner, reverse=True):
            if not self._free or self._free[-1] >= slot:
                break
            if slot in self._running:
                self._move(slot, self._free.pop())
                self._free.append(slot)
                self._free.sort(reverse=True)

    def _move(self, source: int, target: int) -> None:
        request = self._running.pop(source)
        self._running[target] = request
        session = self._owner.pop(source)
        self._owner[target] = session
        session.slot = target
        self.decoder.copy_slot(source, target, len(request.tokens) + self._ticks - request.started)
        for state in (
            self._token, self._length, self._sampled, self._limit, self._active,
            self._temperature, self._top_p, self._top_k, self._uniforms, self._out_tokens, self._out_logprobs,
        ):  # fmt: skip
            state[target] = state[source]
        self._active[source] = False
        self._length[source] = 0


def _detector(sampling: Sampling) -> LoopDetector | None:
    """What looks for loops, with what was sampled of the turn before."""
    if sampling.stop_on_loop is None:
        return None
    found = LoopDetector(sampling.stop_on_loop)
    for token in sampling.begun:
        found.push(token)
    return found
