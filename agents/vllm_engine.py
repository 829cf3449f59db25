"""VLLMEngine: vLLM's asynchronous engine, in processes of its own, with token ids in and out.

Invariant: every completion carries the version that sampled it, and a version is served only after the proof that it is
the trainer's (tests/test_vllm_engine.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import wait
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ..sandbox.errors import LudusError
from .engine import EXPERT_TYPE, Completion, EngineError, Sampling, StopReason, check_request
from .handover import Handover
from .lora import save_merged
from .turn_end import TurnEnd
from .vllm_package import MissingVLLMError, cache_bytes, check_model, environment, first_line, import_vllm
from .vllm_worker import Owner
from .waiting import Waiting
from .weights import Proof, Sent, TransferError, WeightFolder, own_folder, plain_weights, prove

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")
WHOLE_VOCABULARY = 4096
"""Up to so many tokens top-p's kept sets are read off the whole distribution; of more, top-k bounds them."""
DEAD = "vLLM's process has ended; its own messages say why. Resume the run to start it again."
ASLEEP = "vLLM sleeps and has left its memory to the trainer (engine.sleep); call wake() before it is asked."
UNKNOWN = "are not supported for now"
"""How vLLM says of architectures that it does not know them, before the names of some hundreds that it knows."""
POLL_S = 0.5
CLOSE_S = 20.0
WORKER = "ludus.agents.vllm_worker.LudusWorker"


class VLLMEngine:
    """Serves `generate` calls of any event loop from vLLM, and takes new weights from a model in this process.

    model: what is served first, adapters merged. tokenizer: only to find where a stop sequence ends. slots: sequences
    decoded together. max_length: tokens of the longest sequence, prompt included. dtype: of the served copy; float32
    without a GPU and bfloat16 with one, if not given. settings: further arguments of vLLM's engine, such as
    {"gpu_memory_utilization": 0.4, "tensor_parallel_size": 2}. timeout_s: of the start and of each transfer of weights.
    threads: of the processor that it computes with, where it has no GPU. near: folder for weights, see `WeightFolder`.
    handover: how `load_weights` hands weights over; None: vLLM reads the file, which is written in any case, for a
    failed proof goes back to it. sleeps: whether vLLM is asked to `sleep` while its user learns, see `resting`. note:
    is told what is waited for, where that takes more than some seconds. keep_routing: whether completions tell which
    experts a mixture of experts chose.

    exact: in float32 its log-probabilities are the trainer's to 1e-4, which each transfer proves.
    `close` it, or use it as a context manager: it has processes of its own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        slots: int = 64,
        max_length: int = 512,
        dtype: torch.dtype | None = None,
        settings: Mapping[str, Any] | None = None,
        timeout_s: float = 600.0,
        threads: int | None = None,
        near: Path | None = None,
        handover: Handover | None = None,
        sleeps: bool = False,
        note: Callable[[str], None] | None = None,
        keep_routing: bool = False,
    ) -> None:
        vllm = import_vllm()
        on_gpu = torch.cuda.is_available()
        check_model(model, max_length, on_gpu, keep_routing)
        self.dtype = dtype or (torch.bfloat16 if on_gpu else torch.float32)
        self.exact = self.dtype == torch.float32
        self.tokenizer = tokenizer
        self.slots, self.max_length = slots, max_length
        self.version = 0
        self.generated_tokens = 0
        self.proof: Proof | None = None
        self.end_id: int = tokenizer.eos_token_id
        self.vocabulary = int(model.config.vocab_size)
        self.sleeps = sleeps
        self.keeps_routing = keep_routing
        self._logs_experts = keep_routing and not on_gpu
        self._asleep = False
        self._handover = handover
        self._loads = 0
        self._timeout_s = timeout_s
        self._note = note
        self._names = itertools.count()
        self._interrupts = 0
        self._served: Sent | None = None
        self._weights = WeightFolder(near)
        self._lock: int | None
        self._folder, self._lock = own_folder(Path(tempfile.gettempdir()), "ludus-vllm-")
        self._others = {child.pid for child in multiprocessing.active_children()}
        self._given_up = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="ludus-vllm", daemon=True)
        self._thread.start()
        self._llm: Any = None
        self._open = asyncio.Event()  # while it is not set, weights change
        try:
            save_merged(model, self._folder)
            tokenizer.save_pretrained(self._folder)
            arguments = {**self._arguments(model.config, on_gpu), **(settings or {})}
            if self._logs_experts and arguments["enable_prefix_caching"]:
                raise EngineError(
                    "On a CPU, engine.keep_routing needs vLLM to read every prompt whole; remove"
                    " engine.vllm.enable_prefix_caching."
                )
            arguments["additional_config"] = {**arguments.get("additional_config", {}), "ludus": Owner(os.getpid())}
            self._llm = self._do(self._start(vllm, arguments, threads), "start")
            self._delete_folder()  # it has been read, and a kill would leave it
            self._load_first(model)
            if self._logs_experts:
                self._do(self._llm.collective_rpc("ludus_log_experts"), "start")
        except BaseException as error:
            self.close()
            if isinstance(error, LudusError) or not isinstance(error, Exception):
                raise
            if UNKNOWN in str(error):
                known = " and ".join(model.config.architectures or [type(model).__name__])
                raise MissingVLLMError(
                    f"vLLM {vllm.__version__} does not know models of the architecture {known}; choose another model, "
                    "or install a vLLM that does."
                ) from error
            raise MissingVLLMError(f"vLLM did not start: {first_line(error)}; its own messages are above.") from error

    def _arguments(self, config: Any, on_gpu: bool) -> dict[str, Any]:
        """What vLLM's engine is started with. config: of the model."""
        arguments: dict[str, Any] = {
            "model": str(self._folder),
            "dtype": str(self.dtype).removeprefix("torch."),
            "max_model_len": self.max_length,
            "max_num_seqs": self.slots,
            "logprobs_mode": "processed_logprobs",
            "max_logprobs": -1,
            "skip_tokenizer_init": True,
            "disable_log_stats": True,
            "enable_prefix_caching": True,
            "worker_extension_cls": WORKER,
            "seed": 0,
        }
        if self._handover is not None:
            arguments["weight_transfer_config"] = self._handover.config
        if on_gpu:
            arguments["enable_sleep_mode"] = self.sleeps  # there is none on a CPU, where it is only not asked
            if self.keeps_routing:
                arguments["enable_return_routed_experts"] = True
        else:
            # vLLM 0.32 on a CPU dies of a seeded request whose prompt it reads in several passes.
            arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(4096, self.max_length)}
            arguments |= {"enforce_eager": True, "distributed_executor_backend": "uni"}
            arguments["enable_prefix_caching"] = not self.keeps_routing  # see ExpertLog
            arguments["kv_cache_memory_bytes"] = cache_bytes(config, self.slots, self.max_length, self.dtype)
        return arguments

    def __enter__(self) -> VLLMEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End vLLM's processes and delete what was written for them."""
        if self._loop.is_closed():
            return
        if self._llm is not None:
            with contextlib.suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._shutdown(self._llm), self._loop).result(60)
            self._llm = None
        else:
            self._end_start()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        if not self._thread.is_alive():
            self._loop.close()
        self._weights.close()
        self._delete_folder()

    def _end_start(self) -> None:
        """End what may be starting still, for which the loop waits and would not stop."""
        self._given_up = True
        idle = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
        deadline = time.monotonic() + CLOSE_S
        while not wait([idle], timeout=0.2).done and time.monotonic() < deadline:
            for child in multiprocessing.active_children():
                if child.pid not in self._others and "EngineCore" in child.name:
                    child.kill()

    def _delete_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        for lock in self._folder.parent.glob(f"*-{self._folder.name}.lock"):  # of vLLM's, where it was killed loading
            lock.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Generating

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        """Sample a continuation of `token_ids`. Cancelling the awaiting task ends the generation.

        session: without effect; what conversations have in common is cached by vLLM, apart for each version.
        """
        check_request(token_ids, sampling, self.max_length)
        coroutine = _alive(self._generate(token_ids, sampling))
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def release(self, session: str) -> None:
        """Nothing is kept for a conversation."""

    def interrupt(self) -> None:
        """End all generations under way with what they have sampled, as StopReason.INTERRUPTED."""
        self._interrupts += 1

    async def _generate(self, token_ids: list[int], sampling: Sampling) -> Completion:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        room = self.max_length - len(token_ids)
        limit = min(sampling.max_tokens, room)
        truncates = bool(sampling.top_k) or sampling.top_p < 1
        shown = self._shown(sampling) if truncates else 0
        parameters = SamplingParams(
            max_tokens=limit,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=sampling.seed % 2**63,
            logprobs=shown or 0,
            stop_token_ids=[self.end_id],
            ignore_eos=True,  # else it stops at all that the model's generation_config.json names, too
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        await self._open.wait()
        self._check_awake()
        version, interrupts = self.version, self._interrupts
        prompt = tokens_input(token_ids, cache_salt=self._salt(version))
        found = _Sampled(TurnEnd(self.tokenizer, sampling), self.end_id)
        name = f"ludus-{next(self._names)}"
        stream = self._llm.generate(prompt, parameters, name)
        reason: StopReason | None = None
        routed: Any = None
        try:
            async with asyncio.timeout(sampling.deadline_s):
                async for output in stream:
                    if self._interrupts != interrupts:  # one that was still queued begins under the new weights
                        reason = StopReason.INTERRUPTED
                        break
                    reason = found.take(output.outputs[0], bool(shown))
                    routed = getattr(output.outputs[0], "routed_experts", None)
                    if reason is not None:
                        break
        except TimeoutError:
            reason = StopReason.DEADLINE
        finally:
            await stream.aclose()
        if reason is None:
            reason = StopReason.LENGTH if limit == sampling.max_tokens else StopReason.CONTEXT
        self.generated_tokens += len(found.token_ids)
        experts: Sequence[bytes] = ()
        if self._logs_experts:
            experts = (await self._llm.collective_rpc("ludus_take_experts", args=(name,)))[0]
        elif self.keeps_routing:
            if routed is None and reason is not StopReason.INTERRUPTED:
                routed = await self._routed([*token_ids, *found.token_ids], version)
            experts = [] if routed is None else [one.astype(EXPERT_TYPE).tobytes() for one in routed]
        return Completion(
            token_ids=tuple(found.token_ids),
            logprobs=tuple(found.logprobs),
            stop_reason=reason,
            version=version,
            kept=tuple(found.kept) if shown else None,
            experts=tuple(experts[: len(token_ids) + len(found.token_ids)]) or None,
        )

    async def _routed(self, token_ids: list[int], version: int) -> Any:
        """The experts chosen for all tokens but the last, [n - 1, layers, K]; None where other weights are served.

        vLLM tells them of what it ended itself, and a turn may have ended at a stop sequence, which it does not know.
        """
        from vllm import SamplingParams
        from vllm.inputs import tokens_input

        if not self._open.is_set() or self.version != version or len(token_ids) < 2:
            return None
        parameters = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
        prompt = tokens_input(token_ids[:-1], cache_salt=self._salt(version))
        routed: Any = None
        async for output in self._llm.generate(prompt, parameters, f"ludus-{next(self._names)}"):
            routed = output.outputs[0].routed_experts
        return routed

    def _shown(self, sampling: Sampling) -> int | None:
        """How many of the likeliest tokens show what truncation kept; -1 for all, None where too many would."""
        if sampling.top_k:
            return min(sampling.top_k, self.vocabulary)
        return -1 if self.vocabulary <= WHOLE_VOCABULARY else None

    # Weights

    def _load_first(self, model: PreTrainedModel) -> None:
        """Serve version 0, by its file where a handover fails that is not insisted on."""
        handover = self._handover
        try:
            if handover is not None:
                self._do(self._open_handover(handover), "start")
            self.load_weights(model, 0)
        except Exception as error:
            if handover is None or handover.insisted or self._llm.errored:
                raise
            warnings.warn(f"Weights go to vLLM by a file, for they cannot be handed over: {error}", stacklevel=3)
            self._handover = None
            self.load_weights(model, 0)

    def load_weights(self, model: PreTrainedModel, version: int) -> None:
        """Serve the weights of `model` from now on, once it is proven that they are; see `take`."""
        weights = plain_weights(model)
        sent, before = self._weights.send(model, version, weights), self._served
        try:
            if self._handover is None:
                self.take(sent)
            else:
                with contextlib.ExitStack() as stack:
                    try:
                        message = stack.enter_context(self._handover.message(weights))
                    except Exception as error:  # of CUDA, which does not share memory everywhere
                        raise _not_taken(sent, error, handed=True) from error
                    self.proof = self._do(self._take(sent, message), "the weights")
        except BaseException:
            self._weights.forget(sent)
            raise
        if before is not None and before.path != sent.path:
            self._weights.forget(before)

    def take(self, sent: Sent) -> Proof:
        """Serve the weights of a file. TransferError where the proof fails: the version before is served again.

        Generations under way are interrupted; those asked for meanwhile wait, and begin under the new weights.
        """
        self.proof = self._do(self._take(sent), "the weights")
        return self.proof

    async def _take(self, sent: Sent, message: bytes | None = None) -> Proof:
        self._check_awake()
        self._open.clear()
        self.interrupt()
        try:
            try:
                proof = await self._read(sent, message)
            except TransferError:
                if self._served is not None:
                    await self._read(self._served)
                raise
            self._served, self.version = sent, sent.version
            return proof
        finally:
            self._open.set()

    async def _read(self, sent: Sent, message: bytes | None = None) -> Proof:
        """Have the workers take in a version, by its file or a handover's message, and prove it."""
        from vllm.v1.engine.exceptions import EngineDeadError

        await self._llm.pause_generation(mode="wait", clear_cache=False)  # the cache is salted
        self._loads += 1
        try:
            if message is None:
                arrived = await self._llm.collective_rpc("ludus_load", args=(str(sent.path),))
            else:
                arrived = await self._llm.collective_rpc("ludus_take", args=(message,))
        except EngineDeadError:
            raise
        except Exception as error:
            raise _not_taken(sent, error, handed=message is not None) from error
        finally:
            await self._llm.resume_generation()
        logprobs = await self._score(list(sent.probe.token_ids), f"probe {next(self._names)}")
        other = [one for one in arrived if one != arrived[0]]  # of several workers
        return prove(sent, sent.version, (other or arrived)[0], logprobs, self.dtype, "vLLM")

    async def _open_handover(self, handover: Handover) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(handover.opening))

    def logprobs(self, token_ids: list[int]) -> list[float]:
        """The log-probability of each token but the first, in nats, at temperature 1, as served now."""
        return self._do(self._score(token_ids, self._salt(self.version)), "log-probabilities")

    def _salt(self, version: int) -> str:
        """What tells the prefixes that were cached under some weights from all others.

        A version alone does not: it may be sent again with other weights, as after a phase of training.
        """
        return f"version {version}, load {self._loads}"

    async def _score(self, token_ids: list[int], salt: str) -> list[float]:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input

        self._check_awake()
        parameters = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        prompt = tokens_input(token_ids, cache_salt=salt)
        rows: list[Any] = []
        async for output in self._llm.generate(prompt, parameters, f"ludus-{next(self._names)}"):
            rows = output.prompt_logprobs or rows
        return [row[token].logprob for row, token in zip(rows[1:], token_ids[1:], strict=True)]

    # Its memory

    def sleep(self) -> None:
        """Leave the GPU's memory to the trainer until `wake`: weights are kept in main memory, the cache is dropped.

        Generations under way are interrupted, and whatever is asked before `wake` is refused. On a CPU vLLM keeps its
        memory and only stops.
        """
        if not self._asleep:
            self._do(self._sleep(), "sleep")

    def wake(self) -> None:
        """Take the GPU's memory again, with the weights that were served before."""
        if self._asleep:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # what torch keeps for later is what vLLM needs now
            self._do(self._wake(), "waking")

    async def _sleep(self) -> None:
        self._asleep = True
        self.interrupt()
        await self._llm.sleep(level=1)

    async def _wake(self) -> None:
        await self._llm.wake_up()
        self._asleep = False

    def _check_awake(self) -> None:
        if self._asleep:
            raise EngineError(ASLEEP)

    # Its own loop

    def _run(self) -> None:
        # What is started by this thread takes over that it hears of no Ctrl-C, which is for the user's process. The
        # tracker goes first, for Python lets signals through again where it starts one.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._loop.run_forever()

    async def _start(self, vllm: Any, arguments: dict[str, Any], threads: int | None) -> Any:
        from vllm.v1.engine.async_llm import AsyncLLM

        with environment(threads):
            llm = AsyncLLM.from_engine_args(vllm.AsyncEngineArgs(**arguments))
        if self._given_up:  # nobody would end it
            await self._shutdown(llm)
        return llm

    async def _shutdown(self, llm: Any) -> None:
        llm.shutdown(timeout=15)
        await asyncio.sleep(0)

    def _do(self, coroutine: Coroutine[Any, Any, T], what: str) -> T:
        """Run a coroutine on vLLM's loop. EngineError where it takes too long."""
        future = asyncio.run_coroutine_threadsafe(_alive(coroutine), self._loop)
        deadline, waiting = time.monotonic() + self._timeout_s, Waiting()
        while not wait([future], timeout=min(POLL_S, max(deadline - time.monotonic(), 0))).done:
            if self._llm is not None and self._llm.errored:  # of which not every call of vLLM is told
                future.cancel()
                raise EngineError(DEAD)
            if time.monotonic() >= deadline:
                future.cancel()
                raise EngineError(
                    f"vLLM has not answered for {self._timeout_s:g} s ({what}); see its messages, or raise "
                    "engine.timeout_s."
                )
            line = waiting.line(lambda: f"vLLM ({what})")
            if line is not None and self._note is not None:
                self._note(line)
        return future.result()


async def _alive(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns. EngineError where vLLM's process has ended."""
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        return await coroutine
    except EngineDeadError as error:
        raise EngineError(DEAD) from error


class _Sampled:
    """What has come of one generation: token_ids[n], logprobs[n], kept[n]."""

    def __init__(self, end: TurnEnd, end_id: int) -> None:
        self._end, self._end_id = end, end_id
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.kept: list[tuple[int, ...]] = []

    def take(self, output: Any, keep: bool) -> StopReason | None:
        """Take in what is new, up to where the turn ends; why it does."""
        for token, row in zip(output.token_ids, output.logprobs or (), strict=True):
            self.token_ids.append(token)
            self.logprobs.append(row[token].logprob)
            if keep:
                self.kept.append(tuple(sorted(i for i, one in row.items() if one.logprob > float("-inf"))))
            reason = StopReason.END if token == self._end_id else self._end.push(token)
            if reason is not None:
                return reason
        return None


def _not_taken(sent: Sent, error: Exception, handed: bool) -> TransferError:
    advice = "set engine.transfer: file" if handed else "see its messages"
    return TransferError(
        f"vLLM could not take in the weights of version {sent.version} ({first_line(error)}); {advice}, and resume the"
        " run."
    )
