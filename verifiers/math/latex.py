"""LatexReader: commands and their arguments."""

from __future__ import annotations

from .errors import TooLarge, UnknownNotation, Unreadable
from .expression import DEGREE, EULER, IMAGINARY, MINUS_ONE, Node, divide, fn, mul, neg, num, power, sym
from .lexicon import (
    ACCENTS,
    BLACKBOARD,
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    INVERSE,
    POWER,
    PREFIX_SYMBOLS,
    PRODUCT,
    SIGN,
    SUM,
    TEXT_COMMANDS,
)
from .notation import Token
from .rational import MAX_BITS, bits
from .stream import TokenStream, decimal

MAX_CELLS = 400
"""Most entries of one matrix."""


class LatexReader(TokenStream):
    """Reads what LaTeX commands, powers and indices take."""

    def exponent(self) -> Node | None:
        """What stands after ^; None for the sign of degrees."""
        if self.accept("\\circ", "\\degree"):
            return None
        if self.token.text == "{" and self.peek().text in ("\\circ", "\\degree") and self.peek(2).text == "}":
            self.position += 3
            return None
        if self.token.text == "{":
            return self.group()
        if self.token.text in ("-", "+") and self.token.kind == "mark":
            sign = self.take().text
            arg = self.expression(POWER)
            return neg(arg) if sign == "-" else arg
        self.descend()
        token = self.token
        if token.kind == "number":
            self.position += 1
            base = num(decimal(token.text))
        elif token.kind == "word" and not self.is_name(token.text):
            self.tokens[self.position] = Token("word", token.text[1:])  # as LaTeX does: e^xy is e^x y
            base = self.letter(token.text[0])
        else:
            base = self.atom()
        if self.token.text in ("^", "**") and self.token.kind == "mark":
            self.position += 1
            above = self.exponent()
            base = mul(base, DEGREE) if above is None else power(base, above)
        self.depth -= 1
        return base

    @staticmethod
    def is_name(word: str) -> bool:
        """Whether a word is one name, and not letters side by side."""
        return len(word) == 1 or word in FUNCTIONS or word in GREEK or word.lower() in CONSTANTS

    def group(self) -> Node:
        """What stands in braces."""
        self.expect("{")
        if self.accept("}"):
            return Node("text", "")
        bars, self.bars = self.bars, 0
        node = self.over(self.items())
        self.bars = bars
        self.expect("}")
        return node

    def over(self, above: Node) -> Node:
        """What a group holds whose middle is \\over or \\choose; else the node itself."""
        if self.accept("\\over"):
            return quotient(above, self.items())
        return fn("binomial", above, self.items()) if self.accept("\\choose") else above

    def argument(self) -> Node:
        """The argument of a LaTeX command: a group, or the next digit, letter or command."""
        token = self.token
        if token.text == "{" and token.kind == "mark":
            return self.group()
        if token.kind == "number" and len(token.text) > 1:
            self.tokens[self.position] = Token("number", token.text[1:])
            return num(decimal(token.text[0])) if token.text[0].isdecimal() else self.fail(token)
        if token.kind == "word" and len(token.text) > 1:
            self.tokens[self.position] = Token("word", token.text[1:])
            return self.letter(token.text[0])
        return self.atom()

    def argument_or_number(self) -> Node:
        """The next number whole, else an argument."""
        if self.token.kind == "number":
            return num(decimal(self.take().text))
        return self.argument()

    def letter(self, letter: str) -> Node:
        """A symbol, or one of the numbers e and i."""
        return {"e": EULER, "i": IMAGINARY}.get(letter) or sym(letter)

    def indexed(self, node: Node) -> Node:
        """A symbol with what stands below it: x_1, a_{n+1}."""
        if self.token.text == "_" and self.token.kind == "mark":
            self.position += 1
            if self.token.text == "{":
                index = self.raw_group()
            elif self.token.kind == "word" and len(self.token.text) == 2:  # a_nx^n is a_n x^n
                index, self.tokens[self.position] = self.token.text[0], Token("word", self.token.text[1:])
            else:
                index = self.take().text
            return sym(f"{node.value}_{index}")
        return node

    def raw_group(self) -> str:
        """The text of the tokens in braces."""
        self.expect("{")
        depth, parts = 1, []
        while depth:
            token = self.take()
            if token.kind == "end":
                raise Unreadable("a brace is not closed")
            depth += (token.text == "{") - (token.text == "}")
            if depth:
                parts.append(token.text)
        return "".join(parts)

    def command(self, token: Token) -> Node:
        """What a command that was just taken begins. Raises UnknownNotation."""
        name = token.text[1:]
        if name == "frac":
            top = self.argument()
            bottom = self.argument()
            return quotient(top, bottom)
        if name == "sqrt":
            return self._root()
        if name in FUNCTIONS:
            return self.function(FUNCTIONS[name])
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in GREEK:
            return self.indexed(sym(name))
        if name == "binom":
            return fn("binomial", self.argument(), self.argument())
        if token.text in ("\\{", "\\lbrace"):
            return self.braced("\\}" if token.text == "\\{" else "\\rbrace")
        if token.text == "\\langle":
            return self.sequence("(", "\\rangle")
        if name in ("lfloor", "lceil"):
            inner = self.items()
            self.expect("\\rfloor" if name == "lfloor" else "\\rceil")
            return fn("floor" if name == "lfloor" else "ceil", inner)
        if name in ("lvert", "|", "lVert"):
            closer = {"lvert": "\\rvert", "lVert": "\\rVert"}.get(name, token.text)
            inner = self.items()
            self.expect(closer)
            return fn("abs", inner)
        if name in ("emptyset", "varnothing"):
            return Node("set")
        if name == "mathbb":
            letter = self.raw_group() if self.token.text == "{" else self.take().text
            if letter not in BLACKBOARD:
                raise UnknownNotation(f"\\mathbb{{{letter[:10]}}} is not known")
            return Node("opaque", BLACKBOARD[letter])
        if name == "$":
            return mul(self.prefix(), Node("text", "$"))
        if token.text in TEXT_COMMANDS - ACCENTS:
            return self.argument()
        if token.text in ACCENTS:  # the points of a line and the letters of a vector stand in an order
            return Node("opaque", f"{name} {self.raw_group() if self.token.text == '{' else self.take().text}")
        if token.text in PREFIX_SYMBOLS:
            return Node("opaque", f"{name} {self.take().text if self.token.kind == 'word' else ''}".strip())
        if name in ("sum", "prod", "int", "lim"):
            return self._big_operator(name)
        if name == "begin":
            return self._environment()
        if name in ("boxed", "fbox"):
            return self.group()
        if name in ("mathrm", "text", "mbox", "textbf"):
            return self.words(self.raw_group())
        raise UnknownNotation(f"the command {token.text[:20]} is not known")

    def _root(self) -> Node:
        degree: Node | None = None
        if self.accept("["):
            degree = self.items()
            self.expect("]")
        if self.token.kind == "number":
            radicand = num(decimal(self.take().text))
        else:
            radicand = self.argument() if self.token.text == "{" or self.token.kind != "mark" else self.atom()
        return fn("root", radicand, degree or num(2))

    def function(self, name: str) -> Node:
        """A function that was just taken with its power, its base and what it is applied to."""
        if name in ("sqrt", "cbrt"):
            inner = self.postfix_argument()
            return fn("root", inner, num(2 if name == "sqrt" else 3))
        exponent: Node | None = None
        base: Node | None = None
        while self.token.text in ("^", "_") and self.token.kind == "mark":
            if self.take().text == "^":
                exponent = self.exponent()
            elif name == "log":
                base = self.argument_or_number()
            else:
                raise Unreadable("a function has an index")
        args = self._arguments()
        if not args:
            raise Unreadable("a function has no argument")
        if exponent == MINUS_ONE and name in INVERSE:
            name, exponent = INVERSE[name], None
        if name == "log" and base is not None:
            node = fn("log_base", base, *args)
        elif name == "log10":
            node = fn("log_base", num(10), *args)
        elif name == "exp":
            node = power(EULER, args[0])
        else:
            node = fn(name, *args)
        return node if exponent is None else power(node, exponent)

    def postfix_argument(self) -> Node:
        """What stands in brackets, else all that binds more strongly than a product."""
        if self.token.text in ("(", "{", "["):
            return self.atom()
        return self.expression(SIGN)

    def _arguments(self) -> tuple[Node, ...]:
        """What a function is applied to: brackets, or the factors up to the next sign or function."""
        if self.token.text in ("(", "[", "{") and self.token.kind == "mark":
            inner = self.atom()
            return inner.args if inner.op in ("seq", "list", "set") else (inner,)
        factors: list[Node] = []
        if self.token.text in ("-", "+") and self.token.kind == "mark":
            return (self.expression(SIGN),)
        while not factors or self.starts_factor(factors[-1]):
            token = self.token
            if factors and (token.text in ("(", "[", "|") or token.kind == "text"):
                break
            if factors and (token.text[1:] if token.kind == "command" else token.text) in FUNCTIONS:
                break
            factors.append(self.postfix(self.atom()))
            if self.token.text == "/" and self.peek().kind == "number" and factors[-1] == CONSTANTS["pi"]:
                self.position += 1
                factors.append(power(num(decimal(self.take().text)), MINUS_ONE))
        return (mul(*factors),)

    def _big_operator(self, name: str) -> Node:
        below: Node | None = None
        above: Node | None = None
        while self.token.text in ("_", "^") and self.token.kind == "mark":
            if self.take().text == "_":
                below = self.argument_or_number()
            else:
                above = self.exponent()
        body = self.expression(PRODUCT if name in ("prod", "lim") else SUM)
        if name in ("sum", "prod") and below is not None and _counts(below) and above is not None:
            return fn(name, body, *below.args[:2], above)
        return Node("opaque", name, tuple(part for part in (below, above, body) if part is not None))

    def _environment(self) -> Node:
        name = self.raw_group()
        if name not in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "array", "vmatrix", "Bmatrix", "cases"):
            raise UnknownNotation(f"the environment {name[:20]} is not known")
        if name == "array" and self.token.text == "{":
            self.raw_group()
        bars, self.bars = self.bars, 0
        separate, self.commas_separate = self.commas_separate, name != "cases"
        rows: list[list[Node]] = [[]]
        while True:
            if self.accept("\\end"):
                break
            if self.accept("\\\\"):
                rows.append([])
                if self.token.text == "[" and self.peek(3).text == "]":  # the height of the line
                    self.position += 4
            elif self.accept("&", "\\hline"):
                continue
            else:
                rows[-1].append(self.items())
                if sum(map(len, rows)) > MAX_CELLS:
                    raise TooLarge(f"a matrix has more than {MAX_CELLS} entries")
        self.bars, self.commas_separate = bars, separate
        if self.raw_group() != name:
            raise Unreadable("an environment ends under another name")
        rows = [row for row in rows if row]
        if name == "cases":
            return Node("opaque", "cases", tuple(cell for row in rows for cell in row))
        if not rows or len({len(row) for row in rows}) != 1:
            raise Unreadable("the rows of a matrix differ in length")
        cells = Node("matrix", str(len(rows[0])), tuple(cell for row in rows for cell in row))
        return fn("det", cells) if name == "vmatrix" else cells


def _counts(node: Node) -> bool:
    """Whether it is "k = 1"; i counts, too, and is no imaginary unit then."""
    return node.op == "rel" and node.value == "=" and node.args[0].op in ("sym", "const")


def quotient(top: Node, bottom: Node) -> Node:
    """A fraction. TooLarge where its numbers are; dy/dx is a derivative and no fraction."""
    if top.op == bottom.op == "num" and bottom.value != 0:
        if bits(top.number) + bits(bottom.number) > MAX_BITS:
            raise TooLarge(f"a number has more than {MAX_BITS} bits")
        return num(top.number / bottom.number)
    if _is_differential(top) and _is_differential(bottom):
        return Node("opaque", "derivative", (top, bottom))
    return divide(top, bottom)


def _is_differential(node: Node) -> bool:
    """Whether it is d, dx or d^2y."""
    first = node.args[0] if node.op == "mul" else node
    return first == sym("d") or (first.op == "pow" and first.args[0] == sym("d"))
