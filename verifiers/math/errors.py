"""Why an answer cannot be read or decided. None of these leaves the verifier; each becomes a verdict."""

from __future__ import annotations


class Unreadable(Exception):
    """The text is not mathematics as far as it can be read."""


class UnknownNotation(Unreadable):
    """The text uses a command or environment that is not known, so nothing can be said about its meaning."""


class TooLarge(Exception):
    """A guard stopped the work: the text, its nesting or a number in it is too large."""


class TooMuchWork(TooLarge):
    """The operations granted to this comparison are used up."""


class NoValue(Exception):
    """The expression has no numerical value that could be calculated."""


class Undefined(NoValue):
    """The expression is undefined there, such as a division by zero."""


class Imprecise(NoValue):
    """At this precision it cannot be told; at a finer one perhaps."""
