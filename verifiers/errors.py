"""What can be wrong with the set-up of a verifier, as one sentence that names the fix."""

from __future__ import annotations

from ..sandbox.errors import LudusError


class VerifierError(LudusError):
    """A verifier was set up, or given a right answer, that it cannot work with. Responses never raise this."""
