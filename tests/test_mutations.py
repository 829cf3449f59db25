"""Single mutations of a program: each parses, differs in one place, and comes in the same order."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.envs.mutations import mutations

SOURCE = '''"""Docstring 1."""

LIMITS = (-1, 2)


def grade(n, strict=False):  # a comment stays
    if n < 0 or not strict and n >= 10:
        return "é" if n == 3 else n // 2 + 1
    return f"{n + 1}"
'''


def test_each_kind_of_bug_is_made_where_it_belongs() -> None:
    made = {(one.line, one.before, one.after) for one in mutations(SOURCE)}
    assert {
        (3, "1", "2"),
        (3, "2", "3"),
        (6, "False", "True"),
        (7, "n < 0", "n <= 0"),
        (7, "n >= 10", "n > 10"),
        (7, "not strict", "strict"),
        (7, "not strict and n >= 10", "not strict or n >= 10"),
        (8, "n == 3", "n != 3"),
        (8, "n // 2", "n % 2"),
        (8, "n // 2 + 1", "n // 2 - 1"),
    } <= made
    assert all(one.line > 1 for one in mutations(SOURCE))


def test_all_else_stays_as_it_is() -> None:
    for one in mutations(SOURCE):
        ast.parse(one.source)
        lines, changed = SOURCE.splitlines(), one.source.splitlines()
        assert [i + 1 for i in range(len(lines)) if lines[i] != changed[i]] == [one.line]
        begin = len(lines[one.line - 1].encode()[: one.column].decode())
        assert lines[one.line - 1][:begin] == changed[one.line - 1][:begin]


def test_no_two_are_the_same_and_the_order_is_that_of_the_text() -> None:
    made = mutations(SOURCE)
    assert len({one.source for one in made}) == len(made)
    assert [(one.line, one.column) for one in made] == sorted((one.line, one.column) for one in made)
    with pytest.raises(SyntaxError):
        mutations("def (")


NUMBER = st.integers(0, 99).map(str)
EXPRESSION = st.recursive(
    NUMBER | st.sampled_from(["a", "b", "'é'"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "<", "==", "and", "or", "in"]), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
        inner.map(lambda one: f"(not {one})"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
    ),
    max_leaves=6,
)


@given(expression=EXPRESSION)
def test_any_mutation_of_any_expression_parses_and_means_something_else(expression: str) -> None:
    source = f"value = {expression}\n"
    for one in mutations(source):
        assert ast.dump(ast.parse(one.source)) != ast.dump(ast.parse(source))
