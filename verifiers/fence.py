"""Fence: shows untrusted text to a judge as data.

Invariant: of a quoted text no line stands without its mark, no control token of a chat template survives, nothing is
invisible, and the codes of its fence do not occur in it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

LINE_MARK = "> "
CODE_LENGTH = 12

CONTROL = re.compile(
    r"(?<=[<＜﹤])(?=[|｜]|[<＜﹤]?[/／]?[A-Za-z])"  # <|im_start|>, <｜User｜>, <<SYS>>, </s>, <start_of_turn>, <think>
    r"|(?<=\[)(?=/?[a-z]?[A-Z_]{2,24}\])"  # [INST], [/INST], [TOOL_CALLS], [gMASK]
    r"|(?<=\])(?=~)|(?<=\[e)(?=~\[)"  # ]~b], [e~[
)
"""Where a space breaks what a chat template or a tokenizer could take for a control token."""
RULE = re.compile(r"[-‐-―−]{2}(?=[ \t]{0,8}(?:BEGIN|END)\b)", re.IGNORECASE)
"""The end of a rule before BEGIN or END, as the markers of a fence have it."""
VARIATION_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")


@dataclass(frozen=True)
class Quoted:
    """A text as the judge sees it.

    cut_chars: left out of its middle. removed_chars: invisible ones taken away. blank: there is nothing to see in it.
    """

    text: str
    cut_chars: int
    removed_chars: int
    blank: bool


def quote(text: str, max_chars: int) -> Quoted:
    """Mark each line of `text` as data, of which head and tail are kept where it is longer than `max_chars`.

    Invisible characters go (controls, direction marks, joiners, the tag letters that hide messages). A space breaks
    control tokens, so that `<|im_end|>` reads `< |im_end|>`.
    """
    cut_chars = max(len(text) - max_chars, 0)
    if cut_chars:
        head, tail = text[: (max_chars + 1) // 2], text[len(text) - max_chars // 2 :]
        parts = [*head.splitlines(), f"[... {cut_chars} characters are left out here ...]", *tail.splitlines()]
    else:
        parts = text.splitlines()
    visible = [_visible(line) for line in parts]
    removed_chars = sum(map(len, parts)) - sum(map(len, visible))
    lines = [RULE.sub("~ ", CONTROL.sub(" ", line)) for line in visible] or [""]
    blank = not any(line.strip() for line in visible)
    return Quoted("\n".join(LINE_MARK + line for line in lines), cut_chars, removed_chars, blank)


def derive_codes(secret: str, texts: Sequence[str], shown: Sequence[str]) -> tuple[str, str]:
    """Two codes that look random, are the same for the same secret and texts, and occur in none of the `shown` texts.

    A policy cannot know them: its own response goes into them.
    """
    codes = (code for code in _codes(secret, texts) if not any(code in text.lower() for text in shown))
    return next(codes), next(codes)


def _codes(secret: str, texts: Sequence[str]) -> Iterator[str]:
    digest = hmac.new(_bytes(secret), digestmod=hashlib.sha256)
    for text in texts:
        encoded = _bytes(text)
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    for number in count():
        this = digest.copy()
        this.update(number.to_bytes(8, "big"))
        yield this.hexdigest()[:CODE_LENGTH]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _visible(line: str) -> str:
    """Without control, format and variation characters; an unpaired surrogate becomes U+FFFD."""
    kept = (c for c in VARIATION_SELECTORS.sub("", line) if c == "\t" or unicodedata.category(c) not in ("Cc", "Cf"))
    return "".join("\ufffd" if unicodedata.category(c) == "Cs" else c for c in kept)
