"""Node: what every mathematical answer becomes, a number as well as a set of equations.

Invariant: a node is immutable data made of strings, fractions and other nodes; two equal nodes mean the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from .errors import TooLarge

MAX_NODES = 4_000
"""Largest number of nodes in one answer."""


class Node(NamedTuple):
    """One operation, its value where it has one, and its arguments.

    Numbers: num (value), const (pi, e, i, oo, deg), sym (name), add, mul, pow (base, exponent), fn (name; arguments),
    pm (±, name + or -; argument), opaque (name; arguments).
    Answers: text (value), unit (name; expression), percent (expression), based (digits_base), list, set,
    seq (brackets such as "(]"; items), matrix (columns; cells), rel (operators; sides), union, intersection, minus
    (of sets), ratio, ellipsis.
    """

    op: str
    value: Fraction | str | None = None
    args: tuple[Node, ...] = ()

    @property
    def number(self) -> Fraction:
        """The value of a num."""
        assert isinstance(self.value, Fraction)
        return self.value

    def walk(self) -> Iterator[Node]:
        """This node and every node below it."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending += node.args

    def has(self, *ops: str) -> bool:
        """Whether one of these operations occurs anywhere."""
        return any(node.op in ops for node in self.walk())

    def symbols(self) -> set[str]:
        """Names of all symbols."""
        return {str(node.value) for node in self.walk() if node.op == "sym"}

    def map(self, op: str, change: Node) -> Node:
        """The same with every node of this operation replaced."""
        if self.op == op:
            return change
        if not self.args:
            return self
        return Node(self.op, self.value, tuple(arg.map(op, change) for arg in self.args))


ZERO = Node("num", Fraction(0))
ONE = Node("num", Fraction(1))
MINUS_ONE = Node("num", Fraction(-1))
PI, EULER, IMAGINARY, INFINITY, DEGREE = (Node("const", name) for name in ("pi", "e", "i", "oo", "deg"))


def num(value: int | Fraction) -> Node:
    """A rational number."""
    return Node("num", Fraction(value))


def sym(name: str) -> Node:
    """A symbol."""
    return Node("sym", name)


def add(*args: Node) -> Node:
    """A sum, with nested sums opened."""
    flat: list[Node] = []
    for arg in args:
        flat += arg.args if arg.op == "add" else (arg,)
    return Node("add", None, tuple(flat)) if len(flat) != 1 else flat[0]


def mul(*args: Node) -> Node:
    """A product, with nested products opened and a product of one number and a sign made a number."""
    flat: list[Node] = []
    for arg in args:
        flat += arg.args if arg.op == "mul" else (arg,)
    if len(flat) == 2 and flat[0] == MINUS_ONE and flat[1].op == "num":
        return num(-flat[1].number)
    return Node("mul", None, tuple(flat)) if len(flat) != 1 else flat[0]


def power(base: Node, exponent: Node) -> Node:
    """A power."""
    return Node("pow", None, (base, exponent))


def neg(arg: Node) -> Node:
    """The negative."""
    return mul(MINUS_ONE, arg)


def divide(top: Node, bottom: Node) -> Node:
    """A quotient."""
    return mul(top, power(bottom, MINUS_ONE))


def fn(name: str, *args: Node) -> Node:
    """A function applied."""
    return Node("fn", name, args)


def check_size(node: Node) -> Node:
    """The node itself; TooLarge where it has more than MAX_NODES."""
    for count, _ in enumerate(node.walk()):
        if count > MAX_NODES:
            raise TooLarge(f"the answer has more than {MAX_NODES} parts")
    return node


_NO_FACTORS = ("text", "seq", "list", "set", "rel", "opaque", "matrix", "union", "ratio", "based", "ellipsis")


def sort_key(node: Node) -> tuple[object, ...]:
    """Something to sort nodes by, the same in every process."""
    value = (node.number.numerator, node.number.denominator) if node.op == "num" else str(node.value)
    return (node.op, value, tuple(map(sort_key, node.args)))


def canonical(node: Node) -> Node:
    """The same node with sums, products, sets and lists of factors in one order and their numbers put together."""
    args = tuple(canonical(arg) for arg in node.args)
    if node.op in ("add", "mul"):
        total = Fraction(0 if node.op == "add" else 1)
        rest: list[Node] = []
        for arg in [part for given in args for part in (given.args if given.op == node.op else (given,))]:
            if arg.op != "num":
                rest.append(arg)
            elif node.op == "add":
                total += arg.number
            else:
                total *= arg.number
        if node.op == "mul" and total == 0 and not any(arg.has(*_NO_FACTORS) for arg in rest):
            rest = []
        # Vectors, angles and unknown functions keep their order: what they mean may depend on it.
        if node.op == "add" or not any(arg.has("opaque") for arg in rest):
            rest.sort(key=sort_key)
        if total != (0 if node.op == "add" else 1) or not rest:
            rest.insert(0, Node("num", total))
        return rest[0] if len(rest) == 1 else Node(node.op, None, tuple(rest))
    if node.op == "set":
        args = tuple(sorted(set(args), key=sort_key))
    elif node.op in ("union", "intersection"):
        args = tuple(sorted(args, key=sort_key))
    if node.op == "pow" and args[0].op == args[1].op == "num" and args[1].value == -1 and args[0].value != 0:
        return num(1 / args[0].number)
    return Node(node.op, node.value, args)
