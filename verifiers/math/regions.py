"""Sets of real numbers: intervals, unions and inequalities, brought to one form.

Invariant: the pieces are disjoint, sorted, and none could be joined with the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .expression import INFINITY, Node, neg
from .numerical import approximate
from .work import Work


class Piece(NamedTuple):
    """The numbers between two ends; a single number has the same end twice."""

    low: Node
    low_closed: bool
    high: Node
    high_closed: bool


@dataclass(frozen=True)
class Region:
    """A set of real numbers, and the name of the variable where one is given."""

    pieces: tuple[Piece, ...]
    variable: str | None = None


_BELOW = neg(INFINITY)
EVERYTHING = Piece(_BELOW, False, INFINITY, False)
_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "≠": "≠", "=": "="}


def read(node: Node, work: Work) -> Region | None:
    """The region that an answer describes, or None where it describes none (or its ends cannot be put in order)."""
    found = _read(node, work)
    if found is None:
        return None
    pieces = _tidy(list(found.pieces), work)
    return None if pieces is None else Region(tuple(pieces), found.variable)


def _read(node: Node, work: Work) -> Region | None:
    work.spend(10)
    if node.op == "seq" and len(node.args) == 2:
        brackets = str(node.value)
        if _compare(node.args[0], node.args[1], work) in (0, 1):  # a point, and no interval
            return None
        return Region((Piece(node.args[0], brackets[0] == "[", node.args[1], brackets[1] == "]"),))
    if node.op == "opaque" and node.value == "reals":
        return Region((EVERYTHING,))
    if node.op == "set":
        if any(arg.op in ("seq", "rel", "list", "set", "text", "ellipsis") for arg in node.args):
            return None
        return Region(tuple(Piece(arg, True, arg, True) for arg in node.args))
    if node.op == "rel":
        return _relation(node, work)
    if node.op in ("union", "intersection", "minus") or node.op == "list":
        parts = [_read(arg, work) for arg in node.args]
        if any(part is None for part in parts):
            return None
        regions = [part for part in parts if part is not None]
        names = {region.variable for region in regions} - {None}
        if len(names) > 1:
            return None
        name = next(iter(names), None)
        if node.op == "list" and node.value == ",":
            return _joined(regions, name, work)
        if node.op == "union" or node.value == "or":
            return Region(tuple(piece for region in regions for piece in region.pieces), name)
        result: list[Piece] | None = list(regions[0].pieces)
        for region in regions[1:]:
            other: list[Piece] | None = list(region.pieces)
            if node.op != "minus" and other is not None:
                other = _complement(other, work)
            result = None if result is None or other is None else _cut(result, other, work)
        return None if result is None else Region(tuple(result), name)
    return None


def _joined(regions: list[Region], name: str | None, work: Work) -> Region | None:
    """Inequalities between commas: all of them together, unless nothing fulfils all; then each of them."""
    result: list[Piece] | None = list(regions[0].pieces)
    for region in regions[1:]:
        holes = _complement(list(region.pieces), work)
        result = None if result is None or holes is None else _cut(result, holes, work)
    if result is None:
        return None
    return Region(tuple(result or [piece for region in regions for piece in region.pieces]), name)


def _relation(node: Node, work: Work) -> Region | None:
    signs, sides = str(node.value), node.args
    if signs == "∈" and sides[0].op == "sym":
        inner = _read(sides[1], work)
        return None if inner is None else Region(inner.pieces, str(sides[0].value))
    if any(sign not in _FLIPPED for sign in signs) or "=" in signs:
        return None
    if len(signs) == 1:
        sign, (left, right) = signs, sides
        if left.op != "sym":
            sign, left, right = _FLIPPED[sign], right, left
        if left.op != "sym" or right.symbols():
            return None
        name = None if left.value == "_" else str(left.value)
        if sign == "≠":
            return Region((Piece(_BELOW, False, right, False), Piece(right, False, INFINITY, False)), name)
        closed = sign in "≤≥"
        if sign in "<≤":
            return Region((Piece(_BELOW, False, right, closed),), name)
        return Region((Piece(right, closed, INFINITY, False),), name)
    if len(signs) == 2 and sides[1].op == "sym" and not sides[0].symbols() and not sides[2].symbols():
        low, high = sides[0], sides[2]
        if set(signs) <= set(">≥"):
            low, high, signs = high, low, "".join(_FLIPPED[sign] for sign in reversed(signs))
        if not set(signs) <= set("<≤"):
            return None
        return Region((Piece(low, signs[0] == "≤", high, signs[1] == "≤"),), str(sides[1].value))
    return None


def _side(node: Node) -> int:
    """Where an end lies: -1 and 1 for the infinite ones, 0 for a number."""
    return 1 if node == INFINITY else (-1 if node == _BELOW else 0)


def _compare(a: Node, b: Node, work: Work) -> int | None:
    """-1, 0 or 1 as a is below, equal to or above b; None where one has no value. 0 also where 256 bits show no
    difference."""
    if a == b:
        return 0
    if _side(a) or _side(b):
        return -1 if _side(a) < _side(b) else 1
    left, right = approximate(a, work), approximate(b, work)
    if left is None or right is None:
        return None
    if left < right:
        return -1
    return 1 if left > right else 0


def _tidy(pieces: list[Piece], work: Work) -> list[Piece] | None:
    """Sorted, without empty pieces, and joined where they touch or overlap."""
    kept: list[Piece] = []
    for piece in pieces:
        order = _compare(piece.low, piece.high, work)
        if order is None:
            return pieces if len(pieces) == 1 else None
        if order < 0 or (order == 0 and piece.low_closed and piece.high_closed):
            kept.append(piece)
    sorted_pieces: list[Piece] = []
    for piece in kept:
        index = 0
        while index < len(sorted_pieces):
            order = _compare(piece.low, sorted_pieces[index].low, work)
            if order is None:
                return None
            if order < 0 or (order == 0 and piece.low_closed):
                break
            index += 1
        sorted_pieces.insert(index, piece)
    joined: list[Piece] = []
    for piece in sorted_pieces:
        if joined:
            last = joined[-1]
            order = _compare(last.high, piece.low, work)
            if order is None:
                return None
            if order > 0 or (order == 0 and (last.high_closed or piece.low_closed)):
                ends = _compare(last.high, piece.high, work)
                if ends is None:
                    return None
                high, closed = (piece.high, piece.high_closed) if ends < 0 else (last.high, last.high_closed)
                if ends == 0:
                    closed = last.high_closed or piece.high_closed
                joined[-1] = Piece(last.low, last.low_closed, high, closed)
                continue
        joined.append(piece)
    return joined


def _complement(pieces: list[Piece], work: Work) -> list[Piece] | None:
    tidy = _tidy(pieces, work)
    if tidy is None:
        return None
    gaps: list[Piece] = []
    low, closed = _BELOW, False
    for piece in tidy:
        if not (low == _BELOW and piece.low == _BELOW):
            gaps.append(Piece(low, closed, piece.low, not piece.low_closed))
        low, closed = piece.high, not piece.high_closed
    if low != INFINITY:
        gaps.append(Piece(low, closed, INFINITY, False))
    return gaps


def _cut(pieces: list[Piece], holes: list[Piece], work: Work) -> list[Piece] | None:
    """The pieces without the holes."""
    gaps = _complement(holes, work) if holes else [EVERYTHING]
    if gaps is None:
        return None
    result: list[Piece] = []
    for piece in pieces:
        for gap in gaps:
            low_order = _compare(piece.low, gap.low, work)
            high_order = _compare(piece.high, gap.high, work)
            if low_order is None or high_order is None:
                return None
            low, low_closed = (gap.low, gap.low_closed) if low_order < 0 else (piece.low, piece.low_closed)
            high, high_closed = (piece.high, piece.high_closed) if high_order < 0 else (gap.high, gap.high_closed)
            if low_order == 0:
                low_closed = piece.low_closed and gap.low_closed
            if high_order == 0:
                high_closed = piece.high_closed and gap.high_closed
            order = _compare(low, high, work)
            if order is None:
                return None
            if order < 0 or (order == 0 and low_closed and high_closed):
                result.append(Piece(low, low_closed, high, high_closed))
    return result
