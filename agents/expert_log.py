"""ExpertLog: which experts vLLM chose for each token, noted in its worker where vLLM does not tell them: on a CPU.

Loaded in vLLM's process, see `LudusWorker`. Prefixes must not be cached there, for what is not computed has no choice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from .engine import EXPERT_TYPE, EngineError

REMEMBERED = 4
"""Times as many requests as run at once, of which the oldest is forgotten; nobody asks for one that was given up."""


class ExpertLog:
    """Notes the choices of a model runner's routers by request, until they are taken."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._layers: dict[int, Tensor] = {}
        self._chunks: dict[str, list[tuple[int, np.ndarray]]] = {}
        self._most = REMEMBERED * runner.scheduler_config.max_num_seqs
        self._count = runner.model_config.get_total_num_hidden_layers()
        found = [module for module in runner.get_model().modules() if hasattr(module, "router")]
        found = [module for module in found if hasattr(module.router, "set_capture_fn")]
        if not found:
            raise EngineError("vLLM computes no mixture of experts with this model; remove engine.keep_routing.")
        for module in found:
            module.router.set_capture_fn(partial(self._layers.__setitem__, int(module.layer_id)))
        self._execute = runner.execute_model
        runner.execute_model = self._noted

    def take(self, request: str) -> list[bytes]:
        """What was chosen as each token of a request was read, as `Completion.experts` has it; forgotten here."""
        own = next((name for name in self._chunks if name.startswith(f"{request}-") or name == request), "")
        rows: list[bytes] = []
        for first, chunk in self._chunks.pop(own, []):
            if first > len(rows):
                break
            rows[first:] = [row.tobytes() for row in chunk]  # what was computed again is what was gone on with
        return rows

    def _noted(self, scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        """The runner's step, and what its routers chose in it."""
        self._layers.clear()
        result = self._execute(scheduled, *args, **kwargs)
        counts = scheduled.num_scheduled_tokens
        if counts and self._layers:
            self._note(counts)
        return result

    def _note(self, counts: dict[str, int]) -> None:
        width = next(iter(self._layers.values())).shape[1]
        chosen = np.zeros((sum(counts.values()), self._count, width), EXPERT_TYPE)
        for layer, ids in self._layers.items():
            chosen[:, layer] = ids[: len(chosen)].numpy()
        at = 0
        for request in self._runner.input_batch.req_ids:
            count = counts.get(request, 0)
            if count:
                first = self._runner.requests[request].num_computed_tokens
                self._chunks.setdefault(request, []).append((first, chosen[at : at + count]))
                at += count
        while len(self._chunks) > self._most:
            del self._chunks[next(iter(self._chunks))]
