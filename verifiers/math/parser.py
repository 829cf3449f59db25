"""Read an answer: tokens to a node, by precedence.

Invariant: names become symbols and nothing else; nesting over MAX_DEPTH is refused, so that recursion is bounded
(tests/test_math_parser.py).
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from .errors import TooLarge, UnknownNotation, Unreadable
from .expression import (
    DEGREE,
    EULER,
    IMAGINARY,
    INFINITY,
    MINUS_ONE,
    PI,
    Node,
    add,
    check_size,
    divide,
    fn,
    mul,
    neg,
    num,
    power,
    sym,
)
from .notation import END, Token, clean, tokens
from .units import CURRENCIES, known

MAX_DEPTH = 40
MAX_DIGITS = 2_000
"""Most digits of one number; Python itself refuses more than 4,300."""
MAX_EXPONENT = 2_000
"""Largest exponent in scientific notation."""

FUNCTIONS = {
    **{name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "exp", "ln")},
    **{name: name for name in ("gcd", "lcm", "max", "min", "arg", "det", "floor", "ceil", "abs", "sgn", "sign")},
    **{f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    **{f"a{name}": f"a{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{"log": "log", "lg": "log10", "cis": "cis", "Re": "re", "Im": "im", "cosec": "csc", "tg": "tan", "ctg": "cot"},
    **{"sqrt": "sqrt", "cbrt": "cbrt", "erf": "erf", "tr": "tr", "trace": "tr", "ceiling": "ceil"},
}
_INVERSE = {name: f"a{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")}
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar"
)
_GREEK = frozenset(_GREEK_NAMES.split())
_CONSTANTS = {"pi": PI, "infty": INFINITY, "infinity": INFINITY, "infin": INFINITY, "oo": INFINITY}
_RELATIONS = {
    **{"=": "=", "==": "=", "<": "<", ">": ">", "<=": "≤", ">=": "≥", "!=": "≠", "\\le": "≤", "\\leq": "≤"},
    **{"\\leqslant": "≤", "\\ge": "≥", "\\geq": "≥", "\\geqslant": "≥", "\\lt": "<", "\\gt": ">", "\\ne": "≠"},
    **{"\\neq": "≠", "\\in": "∈", "\\equiv": "≡", "\\approx": "≈", "\\sim": "~", "\\to": "→", "\\rightarrow": "→"},
}
_SET_OPERATIONS = {"\\cup": "union", "\\cap": "intersection", "\\setminus": "minus", "\\bigcup": "union", "U": "union"}
_BLACKBOARD = {"R": "reals", "Z": "integers", "N": "naturals", "Q": "rationals", "C": "complexes"}
_FACTORS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SHORT_WORD_LIST = (
    "and or not the no yes is to of as per in by on at off out up all if it was are she he we they one two six ten"
)
_SHORT_WORDS = frozenset(_SHORT_WORD_LIST.split())
_TEXT_COMMANDS = {
    "\\mathbf",
    "\\mathit",
    "\\boldsymbol",
    "\\bold",
    "\\bf",
    "\\mathsf",
    "\\vec",
    "\\mathcal",
    "\\hat",
    "\\it",
}
_ACCENTS = {
    "\\overline",
    "\\bar",
    "\\widehat",
    "\\hat",
    "\\vec",
    "\\overrightarrow",
    "\\mathcal",
    "\\tilde",
    "\\underline",
}
_PREFIX_SYMBOLS = {"\\angle", "\\triangle", "\\measuredangle", "\\partial", "\\nabla", "\\Box", "\\star", "\\dagger"}
_CLOSERS = {"(": ")]", "[": ")]", "\\{": ("\\}",), "\\langle": ("\\rangle",), "\\lbrace": ("\\rbrace",)}
_SEPARATORS = {",", ";"}

RELATION, SET, RATIO, SUM, PRODUCT, SIGN, POWER = 10, 20, 25, 30, 40, 45, 50


def parse(text: str, commas_separate: bool = False) -> Node:
    """The meaning of an answer in LaTeX or plain text.

    commas_separate: whether "1,234" is two numbers; by default it is one outside brackets. Raises Unreadable where the
    text is no mathematics, UnknownNotation where it may be, TooLarge where a guard stops.
    """
    return _parse(clean(text), commas_separate)


@lru_cache(maxsize=2048)
def _parse(text: str, commas_separate: bool) -> Node:
    if not text:
        raise Unreadable("the answer is empty")
    based = re.fullmatch(r"\(?([0-9A-Za-z]+)\)?\s*_\s*\{?\(?(\d{1,2})\)?\}?", text)
    if based and any(char.isdigit() for char in based[1]) and 2 <= int(based[2]) <= 36:
        return _based(based[1], int(based[2]))
    parser = Parser(tokens(text), commas_separate)
    try:
        node = parser.statement()
    except RecursionError as error:
        raise TooLarge("the answer is nested too deeply") from error
    return check_size(node)


def _based(digits: str, base: int) -> Node:
    try:
        int(digits[:MAX_DIGITS], base)
    except ValueError as error:
        raise Unreadable(f"{digits[:20]} is no number in base {base}") from error
    return Node("based", f"{digits.lstrip('0').upper() or '0'}_{base}")


def decimal(text: str) -> Fraction:
    """The exact value of a number token."""
    mantissa, _, exponent = text.replace(",", "").lower().partition("e")
    if len(mantissa) > MAX_DIGITS:
        raise TooLarge(f"a number has more than {MAX_DIGITS} digits")
    if exponent and abs(int(exponent[:8])) > MAX_EXPONENT:
        raise TooLarge(f"a number has an exponent over {MAX_EXPONENT}")
    whole, _, places = mantissa.partition(".")
    value = Fraction(int(whole + places or "0"), 10 ** len(places)) if whole + places else Fraction(0)
    return value * Fraction(10) ** int(exponent) if exponent else value


class Parser:
    """One pass over the tokens of one answer."""

    def __init__(self, found: list[Token], commas_separate: bool = False) -> None:
        self.tokens = found
        self.position = 0
        self.depth = 0
        self.bars = 0
        self.commas_separate = commas_separate

    # Tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def peek(self, ahead: int = 1) -> Token:
        position = self.position + ahead
        return self.tokens[position] if position < len(self.tokens) else END

    def take(self) -> Token:
        token = self.tokens[self.position]
        if token.kind != "end":
            self.position += 1
        return token

    def accept(self, *texts: str) -> bool:
        if self.token.text in texts and self.token.kind not in ("text", "end"):
            self.position += 1
            return True
        return False

    def expect(self, *texts: str) -> str:
        token = self.token
        if not self.accept(*texts):
            found = repr(token.text[:20]) if token.kind != "end" else "the end"
            raise Unreadable(f"{found} stands where {' or '.join(texts)} was expected")
        return token.text

    # Answers

    def statement(self) -> Node:
        """The whole answer."""
        node = self.items()
        if self.token.kind != "end":
            raise Unreadable(f"{self.token.text[:20]!r} stands where the answer should end")
        return node

    def items(self) -> Node:
        """One thing, or several between commas, "and" or "or"."""
        found, separators = [self.expression(0)], set()
        while (separator := self._separator()) is not None:
            separators.add(separator)
            last = separator
            while (again := self._separator()) is not None:
                last = again
                separators.add(again)
            if self.token.kind == "end" and last == ",":
                break
            found.append(self.expression(0))
        if not separators:
            return found[0]
        if len(found) == 1:
            return found[0]
        word = "or" if "or" in separators else ("and" if separators == {"and"} else ",")
        return Node("list", word, tuple(found))

    def _separator(self) -> str | None:
        token = self.token
        if token.kind == "mark" and token.text in _SEPARATORS:
            self.position += 1
            return ","
        if token.kind in ("word", "text"):
            word = token.text.strip().lower().strip(" ,")
            if word in ("and", "or"):
                self.position += 1
                return word
        if token.text in ("\\lor", "\\vee", "\\land", "\\wedge") and token.kind == "command":
            self.position += 1
            return "or" if token.text in ("\\lor", "\\vee") else "and"
        return None

    def expression(self, floor: int) -> Node:
        """Everything that binds more strongly than `floor`."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"the answer is nested more than {MAX_DEPTH} deep")
        left = self.prefix()
        while True:
            following = self.infix(left, floor)
            if following is None:
                break
            left = following
        self.depth -= 1
        return left

    def prefix(self) -> Node:
        """A sign and what it belongs to, or an atom."""
        token = self.token
        if (token.kind == "mark" and token.text in "+-") or token.text in ("\\pm", "\\mp"):
            self.position += 1
            arg = self.expression(SIGN)
            if token.text == "+":
                return arg
            if token.text == "-":
                return neg(arg)
            return Node("pm", "+" if token.text == "\\pm" else "-", (arg,))
        if token.text in _RELATIONS and token.kind in ("mark", "command"):
            # "= 5" at the beginning, or "> 3" without what is compared
            self.position += 1
            sign = _RELATIONS[token.text]
            side = self.expression(RELATION)
            return side if sign in "=≈→" else Node("rel", sign, (sym("_"), side))
        return self.postfix(self.atom())

    def infix(self, left: Node, floor: int) -> Node | None:
        """`left` with the next operator and what follows it, or None where the next binds less than `floor`."""
        token = self.token
        text = token.text
        if token.kind == "end":
            return None
        if token.kind in ("mark", "command"):
            if text in _RELATIONS and floor < RELATION:
                return self._relation(left)
            if text in _RELATIONS:
                return None
            if text in _SET_OPERATIONS:
                return self._set_operation(left, floor)
            if text == ":" and floor < RATIO:
                self.position += 1
                right = self.expression(RATIO)
                return Node("ratio", None, ((*left.args, right) if left.op == "ratio" else (left, right)))
            if text in ("+", "-", "\\pm", "\\mp"):
                if floor >= SUM:
                    return None
                self.position += 1
                right = self.expression(SUM)
                if text in ("+", "-"):
                    return add(left, right if text == "+" else neg(right))
                return add(left, Node("pm", "+" if text == "\\pm" else "-", (right,)))
            if text in ("*", "\\times", "\\cdot", "\\ast", "\\bullet"):
                if floor >= PRODUCT:
                    return None
                self.position += 1
                return mul(left, self.expression(PRODUCT))
            if text in ("/", "\\div"):
                if floor >= PRODUCT:
                    return None
                self.position += 1
                return divide(left, self.expression(PRODUCT))
        if token.kind == "word" and text == "U" and token.spaced and left.op in ("seq", "union", "set"):
            return self._set_operation(left, floor)
        if floor < PRODUCT and self.starts_factor(left):
            return self._adjacent(left)
        return None

    def _relation(self, left: Node) -> Node:
        signs, sides = "", [left]
        while self.token.kind in ("mark", "command") and self.token.text in _RELATIONS:
            signs += _RELATIONS[self.take().text]
            sides.append(self.expression(RELATION))
        if self.accept("\\pmod", "\\bmod", "\\mod"):
            sides.append(fn("modulus", self.expression(SIGN)))
        return Node("rel", signs, tuple(sides))

    def _set_operation(self, left: Node, floor: int) -> Node | None:
        if floor >= SET:
            return None
        op = _SET_OPERATIONS[self.take().text]
        right = self.expression(SET)
        if op == left.op and op != "minus":
            return Node(op, None, (*left.args, right))
        return Node(op, None, (left, right))

    def starts_factor(self, left: Node) -> bool:
        """Whether the next token begins something that is multiplied without a sign."""
        token = self.token
        if token.kind == "number":
            # "2 3" is no product, "(x)2" and "x 2" are not written so either, but "\\frac12 3" and ")(" are read
            return False
        if token.kind in ("word", "text"):
            return token.text.strip().lower().strip(" ,") not in ("and", "or")
        if token.kind == "command":
            name = token.text[1:]
            return (
                name in _GREEK
                or name in _CONSTANTS
                or name in FUNCTIONS
                or token.text in ("\\frac", "\\sqrt", "\\binom", "\\{", "\\lfloor", "\\lceil", "\\$", "\\mathbb")
                or token.text in _TEXT_COMMANDS
                or token.text in _ACCENTS
                or token.text in _PREFIX_SYMBOLS
                or token.text
                in ("\\sum", "\\prod", "\\int", "\\lim", "\\lvert", "\\vert", "\\langle", "\\begin", "\\boxed")
            )
        if token.text == "|":
            return not self.bars
        return token.text in ("(", "[", "{") or (token.text in CURRENCIES and token.kind == "mark")

    def _adjacent(self, left: Node) -> Node:
        token = self.token
        if token.kind == "mark" and token.text in CURRENCIES:
            self.position += 1
            return mul(left, Node("text", token.text))
        if token.text == "\\$":
            self.position += 1
            return mul(left, Node("text", "$"))
        if token.kind == "word" and left.op == "num":
            zeros = _FACTORS.get(token.text.lower())
            if zeros is not None:
                self.position += 1
                return num(left.number * 10**zeros)
        last = left.args[-1] if left.op == "mul" else left
        if token.kind == "word" and len(token.text) > 1 and token.text not in FUNCTIONS:
            if last.op == "text" or (left.op in ("num", "mul", "pow") and known(token.text)):
                self.position += 1
                right = self.postfix(Node("text", token.text))
            else:
                right = self.expression(PRODUCT)
        else:
            right = self.expression(PRODUCT)
        if last.op == "text" and right.op == "text":
            words = Node("text", f"{last.value} {right.value}")
            return mul(*left.args[:-1], words) if left.op == "mul" else words
        if left.op == "num" and left.number >= 0 and left.number.denominator == 1:
            part = _proper_fraction(right)
            if part is not None and token.text == "\\frac":
                return num(left.number + part)
        return mul(left, right)

    # Atoms

    def postfix(self, node: Node) -> Node:
        """Powers, factorials, per cent, degrees and primes after an atom."""
        while True:
            token = self.token
            if token.text in ("^", "**") and token.kind == "mark":
                self.position += 1
                exponent = self.exponent()
                if exponent is None:
                    node = mul(node, DEGREE)
                else:
                    node = power(node, exponent)
            elif token.text == "!" and token.kind == "mark":
                self.position += 1
                if self.token.text == "!" and self.token.kind == "mark":
                    self.position += 1
                    node = fn("double_factorial", node)
                else:
                    node = fn("factorial", node)
                if self.token.text == "!" and self.token.kind == "mark":
                    raise TooLarge("factorials follow one another")
            elif token.text in ("%", "\\%") and token.kind in ("mark", "command"):
                self.position += 1
                node = Node("percent", None, (node,))
                if self.token.text in ("%", "\\%"):
                    raise Unreadable("there are two signs of per cent")
            elif token.text == "\\degree" or (token.text == "\\circ" and token.kind == "command"):
                self.position += 1
                node = mul(node, DEGREE)
            elif token.text == "'" and node.op == "sym":
                self.position += 1
                node = sym(f"{node.value}'")
            else:
                return node

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
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"the answer is nested more than {MAX_DEPTH} deep")
        base = self.atom()
        if self.token.text in ("^", "**") and self.token.kind == "mark":
            self.position += 1
            above = self.exponent()
            base = mul(base, DEGREE) if above is None else power(base, above)
        self.depth -= 1
        return base

    def group(self) -> Node:
        """What stands in braces."""
        self.expect("{")
        if self.accept("}"):
            return Node("text", "")
        bars, self.bars = self.bars, 0
        node = self.items()
        self.bars = bars
        self.expect("}")
        return node

    def argument(self) -> Node:
        """The argument of a LaTeX command: a group, or the next digit, letter or command."""
        token = self.token
        if token.text == "{" and token.kind == "mark":
            return self.group()
        if token.kind == "number" and len(token.text) > 1:
            self.tokens[self.position] = Token("number", token.text[1:])
            return num(decimal(token.text[0])) if token.text[0].isdigit() else self._fail(token)
        if token.kind == "word" and len(token.text) > 1:
            self.tokens[self.position] = Token("word", token.text[1:])
            return self._letter(token.text[0])
        return self.atom()

    def _fail(self, token: Token) -> Node:
        found = repr(token.text[:20]) if token.kind != "end" else "the end"
        raise Unreadable(f"{found} stands where a value was expected")

    def atom(self) -> Node:
        """The smallest thing that has a meaning of its own."""
        token = self.take()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "word":
            return self._word(token.text)
        if token.kind == "text":
            return self._text(token.text)
        if token.kind == "dots":
            return Node("ellipsis")
        if token.kind == "command":
            return self._command(token)
        if token.text in ("(", "["):
            return self._bracketed(token.text)
        if token.text == "{":
            return self._braced("}")
        if token.text == "|":
            return self._bars()
        if token.text in CURRENCIES and token.kind == "mark":
            return mul(self.prefix(), Node("text", token.text))
        return self._fail(token)

    def _number(self, token: Token) -> Node:
        text = token.text
        if "," in text and self.commas_separate:
            first, *rest = text.split(",")
            spliced = [part for piece in rest for part in (Token("mark", ","), Token("number", piece))]
            self.tokens[self.position : self.position] = spliced
            text = first
        value = decimal(text)
        following = self.token
        if following.text == "\\overline" and "." in text and self.peek().text == "{" and self.peek(2).kind == "number":
            digits = self.peek(2).text
            if self.peek(3).text == "}" and digits.isdigit() and len(digits) < 100:
                self.position += 4
                places = len(text.partition(".")[2])
                return num(value + Fraction(int(digits), (10 ** len(digits) - 1) * 10**places))
        if following.kind == "number" and following.spaced and text.isdigit() and following.text.isdigit():
            slash, bottom = self.peek(), self.peek(2)
            if slash.text == "/" and bottom.kind == "number" and bottom.text.isdigit():
                self.position += 3
                under = decimal(bottom.text)
                if under == 0:
                    raise Unreadable("a denominator is zero")
                return num(value + decimal(following.text) / under)
        if following.text == "_" and following.kind == "mark":
            self.position += 1
            base = self.argument_or_number()
            if base.op == "num" and base.number.denominator == 1 and 2 <= base.number <= 36:
                return _based(text, int(base.number))
            raise Unreadable("the base of a number is no whole number from 2 to 36")
        return num(value)

    def argument_or_number(self) -> Node:
        """The next number whole, else an argument."""
        if self.token.kind == "number":
            return num(decimal(self.take().text))
        return self.argument()

    def _letter(self, letter: str) -> Node:
        return {"e": EULER, "i": IMAGINARY}.get(letter) or sym(letter)

    def _word(self, word: str) -> Node:
        if len(word) == 1:
            return self._indexed(self._letter(word))
        if word in FUNCTIONS:
            return self._function(FUNCTIONS[word])
        lower = word.lower()
        if lower in _CONSTANTS:
            return _CONSTANTS[lower]
        if word in _GREEK:
            return self._indexed(sym(word))
        glued = re.fullmatch(r"(sin|cos|tan|ln|log|sqrt)([a-z]|pi)", word)
        if glued:
            self.tokens.insert(self.position, Token("word", glued[2]))
            return self._function(FUNCTIONS[glued[1]])
        if len(word) <= 3 and lower not in _SHORT_WORDS:
            if word.endswith("pi") and len(word) == 3:
                return mul(self._letter(word[0]), PI)
            # The last letter may carry an index or a power: xy_1, xy^2
            letters = [self._letter(letter) for letter in word]
            last = self.postfix(self._indexed(letters[-1]))
            return mul(*letters[:-1], last)
        return Node("text", word)

    def _indexed(self, node: Node) -> Node:
        """A symbol with what stands below it: x_1, a_{n+1}."""
        if self.token.text == "_" and self.token.kind == "mark":
            self.position += 1
            if self.token.text == "{":
                index = self._raw_group()
            else:
                index = self.take().text
            return sym(f"{node.value}_{index}")
        return node

    def _raw_group(self) -> str:
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

    def _text(self, text: str) -> Node:
        text = text.strip()
        if text in FUNCTIONS and text not in ("max", "min", "sign", "arg", "det"):
            return self._function(FUNCTIONS[text])
        if len(text) == 1 and text.isalpha() and text.islower() and self.position == 1 and self.token.kind != "end":
            return self._letter(text)
        if text[:1].isdigit() or re.fullmatch(r"[-+(.]?\d.*", text):
            inner = tokens(clean(text))[:-1]
            self.tokens[self.position : self.position] = inner
            return self.prefix()
        return Node("text", text)

    def _command(self, token: Token) -> Node:
        name = token.text[1:]
        if name == "frac":
            top = self.argument()
            bottom = self.argument()
            return _quotient(top, bottom)
        if name == "sqrt":
            return self._root()
        if name in FUNCTIONS:
            return self._function(FUNCTIONS[name])
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name in _GREEK:
            return self._indexed(sym(name))
        if name == "binom" or name == "choose":
            return fn("binomial", self.argument(), self.argument())
        if token.text in ("\\{", "\\lbrace"):
            return self._braced("\\}" if token.text == "\\{" else "\\rbrace")
        if token.text == "\\langle":
            return self._sequence("(", "\\rangle")
        if name in ("lfloor", "lceil"):
            inner = self.items()
            self.expect("\\rfloor" if name == "lfloor" else "\\rceil")
            return fn("floor" if name == "lfloor" else "ceil", inner)
        if name in ("lvert", "vert", "|", "lVert"):
            closer = {"lvert": "\\rvert", "lVert": "\\rVert"}.get(name, token.text)
            inner = self.items()
            self.expect(closer)
            return fn("abs", inner)
        if name in ("emptyset", "varnothing"):
            return Node("set")
        if name == "mathbb":
            letter = self._raw_group() if self.token.text == "{" else self.take().text
            if letter not in _BLACKBOARD:
                raise UnknownNotation(f"\\mathbb{{{letter[:10]}}} is not known")
            return Node("opaque", _BLACKBOARD[letter])
        if name == "$":
            return mul(self.prefix(), Node("text", "$"))
        if token.text in _TEXT_COMMANDS - _ACCENTS:
            return self.argument()
        if token.text in _ACCENTS:
            return Node("opaque", name, (self.argument(),))
        if token.text in _PREFIX_SYMBOLS:
            return Node("opaque", name)
        if name in ("sum", "prod", "int", "lim"):
            return self._big_operator(name)
        if name == "begin":
            return self._environment()
        if name in ("boxed", "fbox"):
            return self.group()
        if name == "mathrm" or name == "text" or name == "mbox":
            return Node("text", self._raw_group())
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

    def _function(self, name: str) -> Node:
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
        if exponent == MINUS_ONE and name in _INVERSE:
            name, exponent = _INVERSE[name], None
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
        if self.token.text in ("(", "{", "["):
            return self.atom()
        return self.expression(SIGN)

    def _arguments(self) -> tuple[Node, ...]:
        """What a function is applied to: brackets, or the factors up to the next sign or function."""
        if self.token.text in ("(", "[", "{") and self.token.kind == "mark":
            inner = self.atom()
            if inner.op in ("seq", "list"):
                return inner.args
            if inner.op == "set":
                return inner.args
            return (inner,)
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
            if self.token.text == "/" and self.peek().kind == "number":
                self.position += 1
                factors.append(power(num(decimal(self.take().text)), MINUS_ONE))
        return (mul(*factors),)

    def _bracketed(self, opening: str) -> Node:
        return self._sequence(opening, ")", "]")

    def _sequence(self, opening: str, *closers: str) -> Node:
        bars, self.bars = self.bars, 0
        separate, self.commas_separate = self.commas_separate, True
        if self.accept(*closers):
            raise Unreadable("there is nothing in the brackets")
        node = self.items()
        self.bars, self.commas_separate = bars, separate
        closing = self.expect(*closers)
        if node.op == "list" and node.value == ",":
            kinds = {"\\rangle": ")"}
            return Node("seq", ("[" if opening == "[" else "(") + kinds.get(closing, closing), node.args)
        if (opening == "[") != (closing == "]"):
            raise Unreadable("the brackets do not fit")
        return node

    def _braced(self, closing: str) -> Node:
        """A set; braces around one formula without a backslash only group it."""
        if self.accept(closing):
            return Node("set")
        bars, self.bars = self.bars, 0
        separate, self.commas_separate = self.commas_separate, True
        condition = closing != "}" and self.token.kind == "word" and self.peek().text in ("\\mid", "|", ":")
        if condition:  # {x : x > 2} is what x > 2 says
            self.position += 2
        node = self.items()
        self.bars, self.commas_separate = bars, separate
        if condition:
            self.expect(closing)
            if not node.has("rel"):
                raise Unreadable("a set has no condition")
            return node
        if self.token.text in ("\\mid", "|", ":"):
            raise UnknownNotation("a set is given by a condition")
        self.expect(closing)
        if node.op == "list":
            return Node("set", None, node.args)
        return node if closing == "}" else Node("set", None, (node,))

    def _bars(self) -> Node:
        self.bars += 1
        inner = self.items()
        self.bars -= 1
        self.expect("|")
        return fn("abs", inner)

    def _big_operator(self, name: str) -> Node:
        below: Node | None = None
        above: Node | None = None
        while self.token.text in ("_", "^") and self.token.kind == "mark":
            if self.take().text == "_":
                below = self.argument_or_number()
            else:
                above = self.exponent()
        body = self.expression(PRODUCT if name in ("prod", "lim") else SUM)
        counted = (
            below is not None and below.op == "rel" and below.value == "=" and below.args[0].op in ("sym", "const")
        )
        if name in ("sum", "prod") and counted and above is not None:
            return fn(name, body, *below.args[:2], above)  # type: ignore[union-attr]
        return Node("opaque", name, tuple(part for part in (below, above, body) if part is not None))

    def _environment(self) -> Node:
        name = self._raw_group()
        if name not in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "array", "vmatrix", "Bmatrix", "cases"):
            raise UnknownNotation(f"the environment {name[:20]} is not known")
        if name == "array" and self.token.text == "{":
            self._raw_group()
        bars, self.bars = self.bars, 0
        separate, self.commas_separate = self.commas_separate, name != "cases"
        rows: list[list[Node]] = [[]]
        while True:
            if self.accept("\\end"):
                break
            if self.accept("\\\\"):
                rows.append([])
            elif self.accept("&", "\\hline"):
                continue
            else:
                rows[-1].append(self.items())
                if sum(map(len, rows)) > 400:
                    raise TooLarge("a matrix has more than 400 entries")
        self.bars, self.commas_separate = bars, separate
        if self._raw_group() != name:
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


def _quotient(top: Node, bottom: Node) -> Node:
    if top.op == bottom.op == "num" and bottom.value != 0:
        return num(top.number / bottom.number)
    return divide(top, bottom)


def _proper_fraction(node: Node) -> Fraction | None:
    """The value of a fraction between 0 and 1 written with numbers, as in a mixed number."""
    if node.op == "num" and 0 < node.number < 1:
        return node.number
    return None
