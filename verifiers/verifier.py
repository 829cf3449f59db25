"""Verifier: what every checker of responses offers, so that rubrics, environments and `check_verifier` take any."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from .verdict import Verdict


@runtime_checkable
class Verifier(Protocol):
    """Judges a response. It may be called from any thread, and the same call always gives the same verdict."""

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """Judge one response.

        gold: the right answer, for verifiers that compare with one; others ignore it. prompt: what was asked, for
        verifiers that read it. Raises VerifierError where the set-up or the gold answer is at fault, never for a
        response. An infrastructure failure is the outcome ERROR.
        """
        ...
