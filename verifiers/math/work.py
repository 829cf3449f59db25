"""Work: how many operations a comparison may still do.

Counting operations instead of seconds makes the bound the same on every machine and in every run.
"""

from __future__ import annotations

from .errors import TooMuchWork


class Work:
    """A budget that several functions spend together. One unit is about a microsecond."""

    def __init__(self, units: int) -> None:
        self.left = units

    def spend(self, units: int = 1) -> None:
        """Raise TooMuchWork where the budget does not hold so much."""
        self.left -= units
        if self.left < 0:
            raise TooMuchWork("the answer takes too many operations to compare")
