"""TurnEnd: whether the tokens sampled so far end a turn, by a stop sequence or by going round in circles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..verifiers.repetition import LoopDetector
from .engine import Sampling, StopReason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TurnEnd:
    """Watches one generation, token by token; what was sampled of the same turn before counts, too."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> None:
        self._tokenizer, self._stops = tokenizer, sampling.stop
        self._width = max((len(stop.encode()) for stop in sampling.stop), default=0) + 4
        self._tail = list(sampling.begun[-self._width :])
        self._loop = None if sampling.stop_on_loop is None else LoopDetector(sampling.stop_on_loop)
        for token in sampling.begun if self._loop is not None else ():
            self._loop.push(token)

    def push(self, token: int) -> StopReason | None:
        """Why the turn ends with this token, None where it goes on."""
        in_loop = self._loop is not None and self._loop.push(token)
        if self._stops:
            tail = [*self._tail, token][-self._width :]
            before, after = self._tokenizer.decode(tail[:-1]), self._tokenizer.decode(tail)
            self._tail = tail
            if any(after.count(stop) > before.count(stop) for stop in self._stops):
                return StopReason.STOP
        return StopReason.LOOP if in_loop else None
