"""Weights handed to vLLM where they lie: a process on the same GPU reads them through handles of its memory.

Invariant: the tensors behind the handles are held until vLLM has read them, and are those that the file of the same
version holds, by the same names (tests/test_colocated.py).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Handle = dict[str, Any]
"""What finds the memory of one tensor, by the name of the device on which it lies."""


@dataclass(frozen=True)
class Handover:
    """One of vLLM's ways to take weights over, whose messages are those of its backend `ipc`.

    backend: its name in `vllm.distributed.weight_transfer`. handles: one of each tensor, good as long as it is open.
    insisted: where the first handover fails the engine does not start, in place of reading files from then on.
    """

    backend: str
    handles: Callable[[Mapping[str, Tensor]], AbstractContextManager[list[Handle]]]
    insisted: bool = True

    @property
    def config(self) -> dict[str, str]:
        """What vLLM is started with."""
        return {"backend": self.backend}

    @property
    def opening(self) -> dict[str, Any]:
        """What vLLM is told once: each tensor comes by itself, not in a buffer with others."""
        return {"packed": False}

    @contextmanager
    def message(self, weights: Mapping[str, Tensor]) -> Iterator[bytes]:
        """What tells vLLM's worker of these weights, for `LudusWorker.ludus_take`, good as long as this is open."""
        with self.handles(weights) as handles:
            yield pickle.dumps(
                {
                    "names": list(weights),
                    "dtype_names": [str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()],
                    "shapes": [list(tensor.shape) for tensor in weights.values()],
                    "ipc_handles": handles,
                }
            )


@contextmanager
def _handles_on_the_gpu(weights: Mapping[str, Tensor]) -> Iterator[list[Handle]]:
    """As vLLM's own IPCTrainerWeightTransferEngine makes them (0.32)."""
    from torch.multiprocessing.reductions import reduce_tensor

    held = [tensor.detach().contiguous() for tensor in weights.values()]
    gpu = str(torch.cuda.get_device_properties(held[0].device).uuid)
    yield [{gpu: reduce_tensor(tensor)[1]} for tensor in held]
    del held
    torch.cuda.ipc_collect()


ON_THE_GPU = Handover("ipc", _handles_on_the_gpu)
