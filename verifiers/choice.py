"""MultipleChoice: which one letter does a response choose?

Invariant: the rules are tried in a fixed order and the first one whose marker is present decides alone. Its last marker
must hold exactly one letter, and no other of its markers may hold a different one: whoever lists several letters, in
one place or in many, has chosen none. A marker around nothing, such as \\boxed{}, is none.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from .braces import closing_brace
from .denial import clause_before, is_denial
from .errors import VerifierError
from .verdict import Verdict

Rule = Literal["hash", "tag", "boxed", "phrase", "line", "bare"]
"""hash: the line after ####. tag: <answer>…</answer>. boxed: \\boxed{…}. phrase: what follows "the answer is" or
"Answer:" in its line. line: a last line that is nothing but a letter; earlier lines that are nothing but a letter, or
the text of an option, are its markers, too. bare: the whole response."""

ORDER: tuple[Rule, ...] = ("hash", "tag", "boxed", "phrase", "line", "bare")

MAX_RESPONSE_CHARS = 200_000
"""Only so many characters at the end of a response are read, and of those only what follows the last </think>."""
_MAX_MARKED_CHARS = 1_000
_MAX_MARKERS = 100
"""Only so many markers, or lines, counted from the end, are read."""

_PHRASE = re.compile(
    r"\b(?:answer|(?:correct|right|best)\s(?:option|choice))\b[*_ ]{0,4}(?:is\b|:)[*_ ]{0,4}:?", re.IGNORECASE
)
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|boxed|fbox)\s?\{([^{}]*)\}")
_REASON = re.compile(r",?\s(?:because|since|as)\s")
_SENTENCE_END = re.compile(r"[.!?;](?=\s)")
_TURN = r"\s{0,9}(?:no|wait|actually|or|and)\b"
_TURNS = re.compile(_TURN, re.IGNORECASE)
_LINE_END = re.compile(rf"\n(?!{_TURN})", re.IGNORECASE)
# "No other option fits" denies nothing.
_RETRACTED = re.compile(
    r"[\s.,:;)\]–—-]*(?:\?|(?:(?:is|are|was|seems|looks)\s)?(?:wrong|incorrect|false|not|no(?!\sother))\b"
    r"|or\b|cannot\b|(?:is|was|ca)n['’]t\b)",
    re.IGNORECASE,
)
_LETTER = re.compile(r"(?:(?:option|choice|answer)[ :]\s?)?[(\[]?([A-Za-z])(?![\w'’])([)\]]?)", re.IGNORECASE)
_BEFORE_TEXT = re.compile(r"[.):\]]+\s*|[–—-]\s+")
_DECORATION = "*_`~\"'“”‘’ \t\r\n"


class _Start(NamedTuple):
    """The letter that a text begins with, whether a bracket closes behind it, and what follows."""

    letter: str
    closed: bool
    rest: str


class MultipleChoice:
    """CORRECT where the response chooses the right letter and no other.

    letters: the letters there are, such as "ABCD", or how many. options: the text of each letter, or the texts in the
    order of the letters; a response may then choose by that text, and a text behind a letter must be that letter's.
    order: which rules apply, see `Rule`.

    "B", "(B)", "**B**", "b)", "\\text{(B)}", "Option B" and "B. Paris" are a letter; "A, B, C, D", "A or B", "not B"
    and "(B) is wrong" are none, and "all of the above" is one only where it is the text of an option. Without options,
    "B. No" and "B. False" are taken for denials, too: give the options where they may begin like that.
    """

    def __init__(
        self,
        letters: str | int | Sequence[str] = "ABCD",
        *,
        options: Mapping[str, str] | Sequence[str] | None = None,
        order: Sequence[Rule] = ORDER,
    ) -> None:
        if isinstance(letters, list | tuple) and all(isinstance(one, str) and len(one) == 1 for one in letters):
            letters = "".join(letters)
        if not isinstance(letters, str | int):
            raise VerifierError(f"letters = {letters!r:.100} must be letters such as 'ABCD', or their number.")
        known = string.ascii_uppercase[: max(letters, 0)] if isinstance(letters, int) else letters.upper()
        plenty = letters > 26 if isinstance(letters, int) else bool(set(known) - set(string.ascii_uppercase))
        if plenty or len(known) < 2 or len(set(known)) != len(known):
            raise VerifierError(f"letters = {letters!r} must be 2 to 26 different letters of A to Z, or their number.")
        unknown = [rule for rule in order if rule not in get_args(Rule)]
        if unknown or not order:
            raise VerifierError(
                f"Unknown extraction rule {unknown[0] if unknown else ()!r}. Known: {', '.join(get_args(Rule))}."
            )
        self.letters = known
        self.order = tuple(order)
        if isinstance(options, list | tuple):
            if len(options) != len(known):
                raise VerifierError(
                    f"options has {len(options)} texts, but the letters are {known}; give one for each."
                )
            options = dict(zip(known, options, strict=True))
        if not isinstance(options, Mapping | None) or not all(isinstance(one, str) for one in (options or {}).values()):
            raise VerifierError('options must be texts by letter, such as {"A": "Paris"}, or a list of texts.')
        self.options = {letter: _plain(text) for letter, text in (options or {}).items()}
        if self.options and sorted(self.options) != sorted(known):
            raise VerifierError(f"options has the letters {sorted(self.options)}, but letters are {sorted(known)}.")
        if not all(self.options.values()) or len(set(self.options.values())) != len(self.options):
            raise VerifierError("options must be texts that are not empty and all different; correct the task.")
        # "A" may be the article, unless a word follows that joins it to something.
        alone = rf"[{known}](?![\w'’])(?!(?<=A)\s(?!(?:or|and|nor|is|are|was|as|but|not)\b)[a-z])"
        self._another = re.compile(
            rf"(?<![\w'’]){alone}"
            rf"|^[\s.,;:/)&+\]-]*[(\[]?[{known.lower()}](?![\w'’])(?!(?<=a)\s\w)"
            rf"|\b(?i:or|and|nor|not)\s[(\[]?[{known.lower()}](?![\w'’])"
            rf"|[(\[][{known.lower()}][)\]]"
        )
        self._listed = re.compile(
            rf"[\s.,;:/)&+\]-]*(?:\b(?i:or|and|nor|not)\s)?[(\[]?[{known}{known.lower()}](?![\w'’])"
        )

    def verify(self, gold: str | int, response: str, *, prompt: str = "") -> Verdict:
        """CORRECT or WRONG; gold is a letter or its index from 0. The evidence tells which rule read what."""
        expected = self._gold(gold)
        rule, letter, text = self._choose(response[-MAX_RESPONSE_CHARS:].rpartition("</think>")[2])
        evidence = {"rule": rule, "text": text[:200], "expected": expected}
        if rule is None:
            return Verdict.wrong(f"No answer found by the rules {', '.join(self.order)}.", expected=expected)
        if letter is None:
            return Verdict.wrong("The answer is not exactly one letter.", **evidence)
        evidence["extracted"] = letter
        if letter == expected:
            return Verdict.correct("The letter is right.", **evidence)
        return Verdict.wrong("The letter is not the right one.", **evidence)

    def _gold(self, gold: str | int) -> str:
        if isinstance(gold, str) and len(gold.strip()) == 1 and gold.strip().upper() in self.letters:
            return gold.strip().upper()
        if isinstance(gold, int) and not isinstance(gold, bool) and 0 <= gold < len(self.letters):
            return self.letters[gold]
        raise VerifierError(
            f"The right answer {gold!r:.100} is none of the letters {self.letters} and no index into them; correct the"
            " task."
        )

    def _choose(self, text: str) -> tuple[Rule | None, str | None, str]:
        """The rule that decides, the letter that it finds, and the text of its last marker."""
        for rule in self.order:
            found = [marked for marked in self._marked(rule, text) if marked.strip()][-_MAX_MARKERS:]
            if found:
                read = self._stated if rule == "phrase" else self._one_letter
                letters = [read(marked) for marked in found]
                agreed = len({letter for letter in letters if letter}) == 1
                return rule, letters[-1] if agreed else None, found[-1].strip()
        return None, None, ""

    def _marked(self, rule: Rule, text: str) -> list[str]:
        """What the markers of a rule mark, in order; empty where there is none."""
        if rule == "hash":
            return [line.partition("####")[2].lstrip("#") for line in text.splitlines() if "####" in line]
        if rule == "tag":
            closed = text.split("</answer>")[:-1]
            return [piece.rpartition("<answer>")[2] for piece in closed if "<answer>" in piece]
        if rule == "boxed":
            starts = [match.end() for match in re.finditer(r"\\boxed\s?\{", text)][-_MAX_MARKERS:]
            pieces = [text[start : start + _MAX_MARKED_CHARS] for start in starts]
            return [piece[: max(closing_brace(piece, 0), 0)] for piece in pieces]
        if rule == "phrase":
            spans = [match.span() for match in _PHRASE.finditer(text)][-_MAX_MARKERS:]
            said = [_LINE_END.split(text[end : end + _MAX_MARKED_CHARS].lstrip(), maxsplit=1)[0] for _, end in spans]
            denied = [is_denial(clause_before(text, start)) for start, _ in spans]
            return [f"not: {one}" if no else one for one, no in zip(said, denied, strict=True)]
        if rule == "line":
            lines = [line for line in text.splitlines() if line.strip()][-_MAX_MARKERS:]
            chosen = [line for line in lines if self._is_alone(line) or self._is_option(line)]
            return chosen if lines and self._is_alone(lines[-1]) else []
        return [text]

    def _start(self, text: str) -> _Start | None:
        text = _unwrapped(text)
        match = _LETTER.match(text)
        if match is None or match[1].upper() not in self.letters:
            return None
        return _Start(match[1].upper(), bool(match[2]), text[match.end() :].strip(_DECORATION))

    def _is_letter(self, text: str) -> bool:
        start = self._start(text)
        return start is not None and not start.rest.strip(".:,;!)")

    def _is_alone(self, line: str) -> bool:
        return len(line) <= 40 and self._is_letter(line)

    def _is_option(self, text: str) -> bool:
        return len(text) <= _MAX_MARKED_CHARS and _plain(text) in self.options.values()

    def _one_letter(self, text: str) -> str | None:
        """The letter of a text that is one letter, one letter and its option, or an option; else None."""
        if len(text) > _MAX_MARKED_CHARS:
            return None
        start = self._start(text)
        if start is not None:
            if self._is_letter(text):
                return start.letter
            between = _BEFORE_TEXT.match(start.rest)
            if between is not None or start.closed:
                said = start.rest[between.end() if between else 0 :]
                if self.options:
                    if _plain(said) == self.options[start.letter]:
                        return start.letter
                elif "\n" not in said and not _RETRACTED.match(said) and not self._names_another(start.letter, said):
                    return start.letter
        return next((letter for letter, option in self.options.items() if option == _plain(text)), None)

    def _stated(self, text: str) -> str | None:
        """The letter that the rest of a sentence states, whatever reason it then gives."""
        whole = self._one_letter(text)
        if whole is not None:
            return whole
        start = self._start(_REASON.split(text, maxsplit=1)[0])
        if start is None or self._listed.match(start.rest) or (start.rest[:1].isalnum() and not start.closed):
            return None
        said = _plain(start.rest.lstrip(".,:;)-–— "))
        if said in self.options.values():
            return None
        explained = bool(self.options) and said.startswith(self.options[start.letter])
        if (_RETRACTED.match(start.rest) and not explained) or self._is_alternative(start.letter, text):
            return None
        sentence = _SENTENCE_END.split(start.rest, maxsplit=1)[0]
        turns = [one for one in re.split(r"[.!?;]\s|\n", text)[1:] if _TURNS.match(one)]
        return None if any(self._names_another(start.letter, one) for one in [sentence, *turns]) else start.letter

    def _is_alternative(self, letter: str, text: str) -> bool:
        """Whether a text says "B or …" or "… or B" of the letter, perhaps in the reason that it gives."""
        return re.search(rf"\b{letter}[)\]]?\s(?i:or)\b|\b(?i:or)\s[(\[]?{letter}\b", text) is not None

    def _names_another(self, letter: str, text: str) -> bool:
        return any(letter not in match.group().upper() for match in self._another.finditer(text))


def _unwrapped(text: str) -> str:
    """Without the markdown, dollar signs and TeX commands around it."""
    text = text.strip(_DECORATION + "$")
    for _ in range(4):
        text = _WRAPPED.sub(r"\1", text).strip(_DECORATION + "$")
    return text.removeprefix("\\(").removesuffix("\\)").removeprefix("\\[").removesuffix("\\]").strip(_DECORATION)


def _plain(text: str) -> str:
    """An option's text as it is compared: without case, markup, runs of white space, and a full stop."""
    return " ".join(_unwrapped(text).casefold().split()).rstrip(".").strip()
