"""Single mutations of a Python program: small bugs, one at a time, as somebody might make them.

Invariant: the same text gives the same mutations in the same order, each of which parses; and nothing but the place of
the bug changes.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mod},
    **{ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult},
}


@dataclass(frozen=True)
class Mutation:
    """before, after: the changed expression as text. line, column: where it begins, from 1 and from 0. source: the
    whole program.
    """

    line: int
    column: int
    before: str
    after: str
    source: str


def mutations(source: str) -> list[Mutation]:
    """Every single mutation of a program, in the order of its text. Raises SyntaxError where it does not parse.

    Comparisons and operators are exchanged, whole numbers grow by one, `and` and `or` change places, conditions are
    turned round, True and False, too.
    """
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    data = source.encode()
    found: dict[str, Mutation] = {}
    tree = ast.parse(source)
    unchanged = ast.dump(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr) or node.end_lineno is None or node.end_col_offset is None:
            continue
        begin, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        before = data[begin:end].decode()
        for changed in _changes(node):
            after = ast.unparse(changed)
            if before != ast.unparse(node):
                after = f"({after})" if not isinstance(changed, ast.Constant) else after
            text = (data[:begin] + after.encode() + data[end:]).decode()
            try:
                meant = ast.dump(ast.parse(text))
            except SyntaxError:  # inside an f-string, say
                continue
            if meant != unchanged:
                found.setdefault(text, Mutation(node.lineno, node.col_offset, before, after, text))
    return sorted(found.values(), key=lambda one: (one.line, one.column, one.before, one.after))


def _changes(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare):
        for index, kind in enumerate(node.ops):
            if type(kind) in _COMPARISONS:
                changed = copy.deepcopy(node)
                changed.ops[index] = _COMPARISONS[type(kind)]()
                yield changed
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        changed_operation = copy.deepcopy(node)
        changed_operation.op = _OPERATORS[type(node.op)]()
        yield changed_operation
    elif isinstance(node, ast.BoolOp):
        turned = copy.deepcopy(node)
        turned.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield turned
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        if not isinstance(node.operand, ast.Constant):
            yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.IfExp):
        changed_choice = copy.deepcopy(node)
        changed_choice.body, changed_choice.orelse = changed_choice.orelse, changed_choice.body
        yield changed_choice
