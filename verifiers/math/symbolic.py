"""Computer algebra for what numbers cannot decide: endless sums, integrals, limits, and differences too small to see.

Only a worker of `pool` calls it, for it may take any time and any memory. Nodes are turned into SymPy objects one by
one; no text is ever given to SymPy to read. SymPy raises exceptions of any kind where it meets its limits
(AttributeError and KeyError, too), and none of them says anything about the answer: it is undecided then.
"""

from __future__ import annotations

from typing import Any

from .expression import Node


class Untranslatable(Exception):
    """SymPy has nothing for this node."""


def difference_is_zero(gold: Node, given: Node) -> bool | None:
    """Whether two expressions are equal: True or False where that is proven, else None."""
    try:
        difference = to_sympy(gold) - to_sympy(given)
        value = difference.doit()
    except Exception:
        return None
    import sympy

    for attempt in (lambda: value, lambda: sympy.expand(value), lambda: sympy.simplify(value)):
        try:
            found = attempt()
            if found == 0 or found.is_zero:
                return True
            if found.is_zero is False and not found.free_symbols and not found.has(sympy.nan, sympy.zoo):
                return False
        except Exception:
            continue
    return None


def to_sympy(node: Node) -> Any:
    """The SymPy expression of a node. Raises Untranslatable."""
    import sympy

    op = node.op
    if op == "num":
        return sympy.Rational(node.number.numerator, node.number.denominator)
    if op == "const":
        constants = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo, "deg": sympy.pi / 180}
        return constants[str(node.value)]
    if op == "sym":
        return sympy.Symbol(str(node.value), real=True)
    if op == "percent":
        return to_sympy(node.args[0]) / 100
    if op == "opaque":
        return _calculus(node)
    if op == "fn" and node.value in ("sum", "prod"):
        return _series(node)
    args = [to_sympy(arg) for arg in node.args]
    if op == "add":
        return sympy.Add(*args)
    if op == "mul":
        return sympy.Mul(*args)
    if op == "pow":
        return sympy.Pow(*args)
    if op == "fn":
        return _function(str(node.value), args)
    raise Untranslatable(op)


def _function(name: str, args: list[Any]) -> Any:
    import sympy

    if name == "root":
        return sympy.real_root(args[0], args[1]) if args[0].is_negative and args[1].is_odd else args[0] ** (1 / args[1])
    if name == "log_base":
        return sympy.log(args[1]) / sympy.log(args[0])
    functions = {
        **{name: getattr(sympy, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
        **{name: getattr(sympy, name) for name in ("asin", "acos", "atan", "acot", "asec", "acsc", "asinh", "acosh")},
        **{"coth": sympy.coth, "atanh": sympy.atanh, "ln": sympy.log, "log": sympy.log, "exp": sympy.exp},
        **{"abs": sympy.Abs, "floor": sympy.floor, "ceil": sympy.ceiling, "factorial": sympy.factorial},
        **{"binomial": sympy.binomial, "double_factorial": sympy.factorial2},
        **{"max": sympy.Max, "min": sympy.Min, "re": sympy.re, "im": sympy.im, "arg": sympy.arg, "sgn": sympy.sign},
        **{"sign": sympy.sign, "erf": sympy.erf},
    }
    if name not in functions:
        raise Untranslatable(name)
    return functions[name](*args)


def _series(node: Node) -> Any:
    import sympy

    body, variable, low, high = node.args
    counter = sympy.Symbol(f"{variable.value}_counted", integer=True)
    name = Node("sym", f"{variable.value}_counted")
    inner = to_sympy(_put(body, variable, name)).subs(sympy.Symbol(str(name.value), real=True), counter)
    kind = sympy.Sum if node.value == "sum" else sympy.Product
    return kind(inner, (counter, to_sympy(low), to_sympy(high)))


def _put(node: Node, old: Node, new: Node) -> Node:
    if node == old:
        return new
    return Node(node.op, node.value, tuple(_put(arg, old, new) for arg in node.args)) if node.args else node


def _calculus(node: Node) -> Any:
    """An integral "f dx" with or without bounds, or a limit "x → a"."""
    import sympy

    if node.value == "int" and len(node.args) in (1, 3) and node.args[-1].op == "mul":
        *factors, d, variable = node.args[-1].args
        if d == Node("sym", "d") and variable.op == "sym":
            x = to_sympy(variable)
            integrand = sympy.Mul(*(to_sympy(factor) for factor in factors))
            bounds = [to_sympy(arg) for arg in node.args[:-1]]
            return sympy.Integral(integrand, (x, *bounds) if bounds else x)
    if node.value == "lim" and len(node.args) == 2 and node.args[0].op == "rel" and node.args[0].value == "→":
        variable, target = node.args[0].args
        if variable.op == "sym":
            point = to_sympy(target)
            sides = "+-" if point.is_finite else "+"
            return sympy.Limit(to_sympy(node.args[1]), to_sympy(variable), point, sides)
    raise Untranslatable(str(node.value))
