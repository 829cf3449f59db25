"""What Ludus adds to vLLM's worker process: taking in weights, saying what was taken in, and ending with its user.

Loaded by vLLM (`worker_extension_cls`) into each worker.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm.std import TqdmDefaultWriteLock

from .expert_log import ExpertLog
from .weights import digest, read_weights


class LudusWorker:
    """Methods that join those of the worker; `collective_rpc` calls them by name."""

    model_runner: Any
    vllm_config: Any
    ludus_experts: ExpertLog
    start_weight_update: Callable[[], None]
    update_weights: Callable[[dict[str, Any]], None]
    finish_weight_update: Callable[[], None]

    def ludus_load(self, path: str) -> dict[str, str]:
        """Take in the weights of a file; the digest of each tensor that was given to the model, by name."""
        model = self.model_runner.get_model()
        with self._ludus_whole(), _watched(model, whole=True) as found:
            self.model_runner.reload_weights(weights_iterator=read_weights(path))
        _pack_again(model)
        return found

    def ludus_take(self, message: bytes) -> dict[str, str]:
        """Take in weights by vLLM's own weight transfer; the digests as of `ludus_load`.

        message: of a `Handover`, from the process that started vLLM.
        """
        model = self.model_runner.get_model()
        with self._ludus_whole(), _watched(model) as found:
            self.start_weight_update()
            self.update_weights(pickle.loads(message))
            _check_experts(model)
            self.finish_weight_update()
        _pack_again(model)
        return found

    def ludus_log_experts(self) -> None:
        """Note which experts are chosen from now on."""
        self.ludus_experts = ExpertLog(self.model_runner)

    def ludus_take_experts(self, request: str) -> list[bytes]:
        """Those of a request that has ended, token by token."""
        return self.ludus_experts.take(request)

    @contextmanager
    def _ludus_whole(self) -> Iterator[None]:
        """End a loading of weights that fails on the way; vLLM 0.32 would count its tensors as part of the next one."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        try:
            yield
        except BaseException:
            with set_current_vllm_config(self.vllm_config):
                finalize_layerwise_reload(self.model_runner.get_model(), self.vllm_config.model_config)
            raise


def _digested(weights: Iterable[tuple[str, Tensor]], found: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The same tensors. found: filled with the digest of each, by name."""
    for name, tensor in weights:
        found[name] = digest(tensor)
        yield name, tensor


@contextmanager
def _watched(model: Any, whole: bool = False) -> Iterator[dict[str, str]]:
    """The digest of each tensor that the model is given meanwhile, by name. whole: it is given all at once."""
    found: dict[str, str] = {}
    load = model.load_weights

    def watched(weights: Iterable[tuple[str, Tensor]]) -> Any:
        loaded = load(_digested(weights, found))
        if whole:
            _check_experts(model)
        return loaded

    model.load_weights = watched
    try:
        yield found
    finally:
        del model.load_weights  # of this model alone, in front of that of its class


def _check_experts(model: Any) -> None:
    """Raise ValueError where experts were passed over, of which vLLM then serves the old ones and says nothing.

    Of gpt-oss vLLM 0.32 copies them into what stands in for them while weights come.
    """
    from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

    for name, layer in model.named_modules():
        info = get_layerwise_info(layer)
        if hasattr(layer, "w13_weight") and info.can_load() and info.load_numel <= 0:
            raise ValueError(f"it passes over new weights of {name}, so that this model can only be served as it began")


class Owner(str):
    """In vLLM's settings: who starts it. A process to which they are sent ends with that one, from then on.

    So does one that is still starting, which no call reaches. Its value is always the same, for vLLM tells by its
    settings whether what it compiled may be used again.
    """

    pid: int

    def __new__(cls, pid: int) -> Owner:
        found = super().__new__(cls, "owner")
        found.pid = pid
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return follow, (self.pid,)


def follow(pid: int) -> Owner:
    """End this process when another one is gone, however that ended."""
    if pid != os.getpid():
        # Bars in a spawned process share a lock that has a name in /dev/shm, where it stays after a kill of all
        # processes at once. Nobody draws beside this one.
        TqdmDefaultWriteLock.mp_lock = None
        threading.Thread(target=_follow, args=(pid,), name="ludus-follow", daemon=True).start()
    return Owner(pid)


def _follow(pid: int) -> None:
    while _lives(pid):
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


def _lives(pid: int) -> bool:
    """Whether a process is there and not only its exit code, which nobody may come for."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # there is no /proc, or it went this moment, which the next look shows
        return True


def _pack_again(model: Any) -> None:
    """Give the CPU's kernels the matrices that they keep a packed copy of beside the weight.

    vLLM packs an output layer that shares the weight of the embeddings when it is made, and not when that changes; so
    it does with the experts of a mixture, which are then read as if they were packed.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if hasattr(layer, "cpu_linear") and weight is not None and weight.numel():
            dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
        kernel = getattr(getattr(layer, "quant_method", None), "moe_kernel", None)
        experts = getattr(kernel, "fused_experts", None)
        if experts is not None and hasattr(experts, "isa"):  # of a CPU's kernel alone
            experts.process_weights_after_loading(layer)
