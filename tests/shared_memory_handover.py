"""A handover on a machine without a GPU: tensors lie in a file in shared memory, and handles say where in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ludus.agents.handover import Handle, Handover
from ludus.agents.weights import SHARED_MEMORY

BACKEND = "shared_memory"
WORKER = "shared_memory_worker.SharedMemoryWorker"


@contextmanager
def handles_in_shared_memory(weights: Mapping[str, Tensor]) -> Iterator[list[Handle]]:
    with tempfile.NamedTemporaryFile(prefix="ludus-test-", dir=SHARED_MEMORY) as file:
        handles: list[Handle] = []
        for tensor in weights.values():
            handles.append({"cpu": (file.name, file.tell(), tensor.nbytes)})
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        file.flush()
        yield handles


IN_SHARED_MEMORY = Handover(BACKEND, handles_in_shared_memory)


class Faulty:
    """The same, with something wrong in it if `fault` is set: it is altered, or breaks off.

    At keys, of which vLLM makes one matrix with the queries before and the values after them.
    """

    def __init__(self) -> None:
        self.fault: str | None = None

    @property
    def handover(self) -> Handover:
        return Handover(BACKEND, self._handles)

    @contextmanager
    def _handles(self, weights: Mapping[str, Tensor]) -> Iterator[list[Handle]]:
        with handles_in_shared_memory(weights) as handles:
            middle = next(index for index, name in enumerate(weights) if name.endswith("1.self_attn.k_proj.weight"))
            path, start, size = handles[middle]["cpu"]
            if self.fault == "altered":
                with Path(path).open("r+b") as file:
                    file.seek(start + size // 2)
                    file.write(b"\x3f")
            if self.fault == "breaks off":
                handles[middle] = {"another device": (path, start, size)}
            yield handles
