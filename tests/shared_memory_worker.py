"""The side of `shared_memory_handover` in vLLM's process, which imports this as its worker's extension.

All but where tensors come from is vLLM's own backend ipc: its messages, and how the model takes them in.
"""

from __future__ import annotations

from typing import Any

import torch
from shared_memory_handover import BACKEND
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine, IPCWeightTransferUpdateInfo

from ludus.agents.vllm_worker import LudusWorker


class SharedMemoryWorker(LudusWorker):
    weight_transfer_engine: Any

    def taken(self) -> int:
        """How many tensors have come by the handover so far."""
        return self.weight_transfer_engine.taken


class SharedMemoryEngine(IPCWeightTransferEngine):
    taken = 0

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Without the wait for a GPU that vLLM's own ends with."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: IPCWeightTransferUpdateInfo) -> None:
        self.model.load_weights(self._tensors(update_info))

    def _tensors(self, info: IPCWeightTransferUpdateInfo) -> Any:
        for name, dtype, shape, handle in zip(info.names, info.dtype_names, info.shapes, info.ipc_handles, strict=True):
            path, start, size = handle["cpu"]
            with open(path, "rb") as file:
                file.seek(start)
                found = torch.frombuffer(bytearray(file.read(size)), dtype=getattr(torch, dtype))
            self.taken += 1
            yield name, found.view(shape)


WeightTransferEngineFactory.register_engine(BACKEND, SharedMemoryEngine)
