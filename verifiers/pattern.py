"""Pattern and Format: does a response have the shape that was asked for?

Invariant: a regular expression is given so much time and no more; what it has not decided by then is UNDECIDED.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

from .errors import VerifierError
from .verdict import Verdict

Match = Literal["full", "search"]
"""full: the whole response matches. search: some part of it does."""

MAX_CHARS = 200_000
"""A longer response is wrong unread, since what a regular expression remembers of a text grows with it."""

_TAG_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")


class Pattern:
    """CORRECT where a regular expression matches the response.

    pattern: in the syntax of the package `regex`, flags as in "(?i)". match: see `Match`. group: a named group of the
    pattern whose text must equal the gold answer; where it is searched for, everything it finds must. Without one, the
    gold answer is ignored. timeout_s: processor time for one response; `regex` counts that of all threads
    of the process.
    """

    def __init__(
        self, pattern: str, *, match: Match = "full", group: str | None = None, timeout_s: float = 2.0
    ) -> None:
        import regex

        if not isinstance(pattern, str):
            raise VerifierError(f"The pattern must be a str, not {type(pattern).__name__}; give its text, as in r'x+'.")
        if match not in get_args(Match):
            raise VerifierError(f"match = {match!r} is unknown; choose 'full' or 'search'.")
        if not 0 < timeout_s < 3600:
            raise VerifierError(f"timeout_s = {timeout_s} must be above 0 and below 3600 seconds.")
        try:
            self.compiled = regex.compile(pattern)
        except (regex.error, RecursionError, OverflowError) as error:
            raise VerifierError(
                f"The pattern {pattern!r:.200} is no regular expression: {error}; correct it."
            ) from None
        if group is not None and group not in self.compiled.groupindex:
            raise VerifierError(f"The pattern {pattern!r:.200} has no group {group!r}; write it as (?P<{group}>...).")
        self.match: Match = match
        self.group = group
        self.timeout_s = timeout_s

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """CORRECT, WRONG, or UNDECIDED where the time ran out. Raises VerifierError where a group has no gold text."""
        if self.group is not None and (isinstance(gold, bool) or not isinstance(gold, str | int)):
            raise VerifierError(f"The right answer {gold!r:.100} is no text to compare a group with; correct the task.")
        if len(response) > MAX_CHARS:
            return Verdict.wrong(f"The response is longer than {MAX_CHARS:,} characters.")
        try:
            return self._judge(gold, response)
        except TimeoutError:
            return Verdict.undecided(f"The pattern did not come to an end within {self.timeout_s:g} s.")
        except MemoryError:
            return Verdict.undecided("The pattern needed more memory than there is.")

    def _judge(self, gold: str | int, response: str) -> Verdict:
        found = 0
        for text in self._matches(response):
            found += 1
            if text != str(gold) and self.group is not None:
                shown = None if text is None else text[:200]
                return Verdict.wrong("The group is not the right answer.", extracted=shown, expected=str(gold))
        if not found:
            return Verdict.wrong("The pattern does not match.")
        if self.group is None:
            return Verdict.correct("The pattern matches.")
        return Verdict.correct("The pattern matches, and the group is the right answer.", expected=str(gold))

    def _matches(self, response: str) -> Iterator[str | None]:
        """The group's text of each match; where there is no group, of the first match alone."""
        # concurrent lets go of the interpreter's lock, or all other threads would wait for as long as the match takes.
        if self.match == "full":
            one = self.compiled.fullmatch(response, timeout=self.timeout_s, concurrent=True)
            matches = iter([one] if one else [])
        else:
            matches = self.compiled.finditer(response, timeout=self.timeout_s, concurrent=True)
        for match in matches:
            yield None if self.group is None else match[self.group]
            if self.group is None:
                return


class Format:
    """CORRECT where a response is a sequence of sections and nothing else, as Format("<think>", "<answer>") asks for.

    Each tag is opened and closed exactly once, one section after the other, and only white space stands before, between
    and after them. What a section holds does not matter, so it may be empty. The gold answer is ignored.
    """

    def __init__(self, *tags: str) -> None:
        if not all(isinstance(tag, str) for tag in tags):
            raise VerifierError("Format takes its tags one by one, as in Format('<think>', '<answer>'); give no list.")
        names = [tag.removeprefix("<").removesuffix(">") for tag in tags]
        wrong = [tag for tag, name in zip(tags, names, strict=True) if not _TAG_NAME.fullmatch(name)]
        if wrong or not tags:
            raise VerifierError(f"Format needs tags such as '<think>', not {wrong[0] if wrong else 'nothing'!r}.")
        if len(set(names)) != len(names):
            raise VerifierError(f"Format has a tag twice in {', '.join(tags)}; each may stand there once.")
        self.names = tuple(names)

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """CORRECT or WRONG; the reason says in words what is missing or too much."""
        faults = [fault for name in self.names for fault in _miscounted(name, response)] or self._misplaced(response)
        return Verdict.wrong(f"{'; '.join(faults)}.") if faults else Verdict.correct("All sections are in place.")

    def _misplaced(self, response: str) -> list[str]:
        """What is wrong with the places of tags of which each occurs once."""
        marks = [mark for name in self.names for mark in (f"<{name}>", f"</{name}>")]
        places = [response.index(mark) for mark in marks]
        for i in range(1, len(marks)):
            if places[i] < places[i - 1]:
                return [f"{marks[i]} stands before {marks[i - 1]}"]
        if response[: places[0]].strip():
            return [f"there is text before {marks[0]}"]
        for i in range(2, len(marks), 2):
            if response[places[i - 1] + len(marks[i - 1]) : places[i]].strip():
                return [f"there is text between {marks[i - 1]} and {marks[i]}"]
        return [f"there is text after {marks[-1]}"] if response[places[-1] + len(marks[-1]) :].strip() else []


def _miscounted(name: str, response: str) -> list[str]:
    opened, closed = response.count(f"<{name}>"), response.count(f"</{name}>")
    if not opened and not closed:
        return [f"<{name}> is missing"]
    faults = [] if opened == 1 else [f"<{name}> is {'never opened' if not opened else f'opened {opened} times'}"]
    return faults + (
        [] if closed == 1 else [f"<{name}> is {'never closed' if not closed else f'closed {closed} times'}"]
    )
