"""Read an answer: tokens to a node, by precedence.

Invariant: names become symbols and nothing else; nesting over MAX_DEPTH is refused, so that recursion is bounded
(tests/test_math_compare.py).
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from .errors import TooLarge, UnknownNotation, Unreadable
from .expression import DEGREE, IMAGINARY, PI, Node, add, check_size, divide, fn, mul, neg, num, power, sym
from .latex import LatexReader
from .lexicon import (
    CONSTANTS,
    FACTORS,
    FUNCTIONS,
    GREEK,
    PRODUCT,
    RATIO,
    RELATION,
    RELATIONS,
    SCALES,
    SEPARATORS,
    SET,
    SET_OPERATIONS,
    SHORT_WORDS,
    SIGN,
    SUM,
)
from .notation import Token, clean, tokens
from .stream import MAX_DIGITS, decimal
from .units import CURRENCIES, known


def parse(text: str, commas_separate: bool = False, letters: bool = False) -> Node:
    """The meaning of an answer in LaTeX or plain text.

    commas_separate: whether "1,234" is two numbers; by default it is one outside brackets. letters: whether "5yr^2" is
    a product of symbols; by default what is spelled like a unit behind a number is one. Raises Unreadable where the
    text is no mathematics, UnknownNotation where it may be, TooLarge where a guard stops.
    """
    cleaned = clean(text)
    # Short texts, such as right answers that come again; the tree of a long one may take a megabyte.
    read = _parse if len(cleaned) <= MAX_CACHED_CHARS else _parse.__wrapped__
    return read(cleaned, commas_separate, letters)


@lru_cache(maxsize=2048)
def _parse(text: str, commas_separate: bool, letters: bool) -> Node:
    if not text:
        raise Unreadable("the answer is empty")
    based = re.fullmatch(r"[({]?([0-9A-Za-z]+)[)}]?\s*_\s*\{?\(?(\d{1,2})\)?\}?", text)
    if based and any(char.isdecimal() for char in based[1]) and 2 <= int(based[2]) <= 36:
        return _based(based[1], int(based[2]))
    parser = Parser(tokens(text), commas_separate, letters)
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


MAX_CACHED_CHARS = 100
_OPENERS = ("(", "[", "{", "^", "_")
_FUNCTION_LETTERS = "fghFGH"
_SUCH_THAT = ("\\mid", "|", ":")


class Parser(LatexReader):
    """One pass over the tokens of one answer."""

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
        if token.kind == "mark" and token.text in SEPARATORS:
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
        self.descend()
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
        if token.text in RELATIONS and token.kind in ("mark", "command"):
            # "= 5" at the beginning, or "> 3" without what is compared
            self.position += 1
            sign = RELATIONS[token.text]
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
            if text in RELATIONS and floor < RELATION:
                return self._relation(left)
            if text in RELATIONS:
                return None
            if text in SET_OPERATIONS:
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
        if (
            token.kind in ("word", "text")
            and text.strip().lower() == "to"
            and left.op in ("num", "ratio")
            and floor < RATIO
        ):
            self.position += 1
            right = self.expression(RATIO)
            return Node("ratio", None, ((*left.args, right) if left.op == "ratio" else (left, right)))
        if token.kind == "word" and text == "U" and token.spaced and left.op in ("seq", "union", "set"):
            return self._set_operation(left, floor)
        if floor < PRODUCT and self.starts_factor(left):
            return self._adjacent(left)
        return None

    def _relation(self, left: Node) -> Node:
        signs, sides = "", [left]
        while self.token.kind in ("mark", "command") and self.token.text in RELATIONS:
            signs += RELATIONS[self.take().text]
            sides.append(self.expression(RELATION))
        if self.accept("\\pmod", "\\bmod", "\\mod"):
            return Node("opaque", "congruence", (Node("rel", signs, tuple(sides)), self.expression(SIGN)))
        return Node("rel", signs, tuple(sides))

    def _set_operation(self, left: Node, floor: int) -> Node | None:
        if floor >= SET:
            return None
        op = SET_OPERATIONS[self.take().text]
        right = self.expression(SET)
        if op == left.op and op != "minus":
            return Node(op, None, (*left.args, right))
        return Node(op, None, (left, right))

    def starts_factor(self, left: Node) -> bool:
        """Whether the next token begins something that is multiplied without a sign."""
        token = self.token
        if token.kind == "number":  # 2!4! and i4 are products; 2 3 and x 2 are none
            last = left.args[-1] if left.op == "mul" else left
            return (last.op == "fn" and last.value in ("factorial", "double_factorial")) or (
                last in (IMAGINARY, PI) and not token.spaced
            )
        if token.kind in ("word", "text"):
            return token.text.strip().lower().strip(" ,") not in ("and", "or")
        if token.kind == "command":
            name = token.text[1:]
            return token.text in FACTORS or name in GREEK or name in CONSTANTS or name in FUNCTIONS
        if token.text == "|":
            return not self.bars
        return token.text in ("(", "[", "{") or (token.text in CURRENCIES and token.kind == "mark")

    def _adjacent(self, left: Node) -> Node:
        token, start = self.token, self.position
        if token.kind == "mark" and token.text in CURRENCIES:
            self.position += 1
            return mul(left, Node("text", token.text))
        if token.text == "\\$":
            self.position += 1
            return mul(left, Node("text", "$"))
        if token.kind == "word" and left.op == "num":
            zeros = SCALES.get(token.text.lower())
            if zeros is not None:
                self.position += 1
                return num(left.number * 10**zeros)
        if token.kind in ("word", "text") and token.text.strip().lower() in ("percent", "per cent"):
            self.position += 1
            return Node("percent", None, (left,))
        if token.text.lower() == "per" and self.peek().text.lower() == "cent":
            self.position += 2
            return Node("percent", None, (left,))
        last = left.args[-1] if left.op == "mul" else left
        following = self.peek()
        measure = token.text in ("min", "sec") and following.kind in ("end", "mark") and following.text not in _OPENERS
        if token.kind == "word" and len(token.text) > 1 and (measure or token.text not in FUNCTIONS):
            unit = not self.letters and left.op in ("num", "mul", "pow") and known(token.text)
            if last.op == "text" or unit:
                self.position += 1
                right = self.postfix(Node("text", token.text))
                if unit and self.token.text in ("2", "3") and not self.token.spaced:  # cm3
                    right = power(right, num(int(self.take().text)))
            else:
                right = self.expression(PRODUCT)
        else:
            right = self.expression(PRODUCT)
        if last.op == "text" and right.op == "text":
            words = Node("text", f"{last.value} {right.value}")
            return mul(*left.args[:-1], words) if left.op == "mul" else words
        over = any(between.text == "\\over" for between in self.tokens[start : self.position])
        if over and self.tokens[start - 1].kind == "number" and left.op == "num" and left.number.denominator == 1:
            part = _proper_fraction(right)
            if part is not None:
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
            elif token.text in ("\\degree", "\\circ") and token.kind == "command":
                if node.op == "sym":
                    raise UnknownNotation("functions are composed")
                self.position += 1
                node = mul(node, DEGREE)
            elif token.text == "'" and node.op == "sym":
                self.position += 1
                node = sym(f"{node.value}'")
            else:
                return node

    def atom(self) -> Node:
        """The smallest thing that has a meaning of its own."""
        token = self.take()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "word":
            return self._word(token)
        if token.kind == "text":
            return self.words(token.text)
        if token.kind == "dots":
            return Node("ellipsis")
        if token.kind == "command":
            return self.command(token)
        if token.text in ("(", "["):
            return self._bracketed(token.text)
        if token.text == "{":
            return self.braced("}")
        if token.text == "|":
            return self._bars()
        if token.text in CURRENCIES and token.kind == "mark":
            return mul(self.prefix(), Node("text", token.text))
        return self.fail(token)

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
            if self.peek(3).text == "}" and digits.isdecimal() and len(digits) < 100:
                self.position += 4
                places = len(text.partition(".")[2])
                return num(value + Fraction(int(digits), (10 ** len(digits) - 1) * 10**places))
        if following.kind == "number" and following.spaced and text.isdecimal() and following.text.isdecimal():
            slash, bottom = self.peek(), self.peek(2)
            if slash.text == "/" and bottom.kind == "number" and bottom.text.isdecimal():
                self.position += 3
                under = decimal(bottom.text)
                if under == 0:
                    raise Unreadable("a denominator is zero")
                return num(value + decimal(following.text) / under)
        part = self._mixed_part() if text.isdecimal() and following.text == "\\frac" else None
        if part is not None:
            return num(value + part)
        if following.text == "_" and following.kind == "mark":
            self.position += 1
            base = self.argument_or_number()
            if base.op == "num" and base.number.denominator == 1 and 2 <= base.number <= 36:
                return _based(text, int(base.number))
            raise Unreadable("the base of a number is no whole number from 2 to 36")
        return num(value)

    def _mixed_part(self) -> Fraction | None:
        """The fraction behind a whole number, as in 1\\frac{4}{5}, which is then read; None where it is no such one."""
        texts = [self.peek(ahead).text for ahead in range(1, 7)]
        if texts[0] == "{" and texts[2:4] == ["}", "{"] and texts[5] == "}":
            top, bottom, length = texts[1], texts[4], 7
        elif len(texts[0]) == 2:
            top, bottom, length = texts[0][0], texts[0][1], 2
        elif len(texts[0]) == len(texts[1]) == 1:
            top, bottom, length = texts[0], texts[1], 3
        else:
            return None
        if not (top.isdecimal() and bottom.isdecimal()) or not 0 < decimal(top) < decimal(bottom):
            return None
        self.position += length
        return decimal(top) / decimal(bottom)

    def _word(self, token: Token) -> Node:
        word = token.text
        if word.lower() in ("and", "or", "not"):
            raise Unreadable(f"{word!r} stands where a value was expected")
        if len(word) == 1:
            named = [self.peek(ahead).text for ahead in (0, 2, 3)] == ["(", ")", "="] and self.peek().kind == "word"
            called = self._called(word) if named or word in _FUNCTION_LETTERS else None
            return called or self.indexed(self.letter(word))
        if word in FUNCTIONS and (len(word) > 2 or word == "ln" or self.token.text == "("):  # tr^2 is t r^2
            return self.function(FUNCTIONS[word])
        lower = word.lower()
        if lower in CONSTANTS:
            return CONSTANTS[lower]
        if word in GREEK:
            return self.indexed(sym(word))
        glued = re.fullmatch(r"(sin|cos|tan|ln|log|sqrt)([a-z]|pi)", word)
        if glued:
            self.tokens.insert(self.position, Token("word", glued[2]))
            return self.function(FUNCTIONS[glued[1]])
        is_word = lower in SHORT_WORDS and (token.spaced or self.position == 1) and self.token.text not in ("^", "_")
        if len(word) <= 3 and not is_word:
            if word.endswith("pi") and len(word) == 3:
                return mul(self.letter(word[0]), PI)
            # The last letter may carry an index or a power: xy_1, xy^2
            letters = [self.letter(letter) for letter in word]
            last = self.postfix(self.indexed(letters[-1]))
            return mul(*letters[:-1], last)
        return Node("text", word)

    def _called(self, letter: str) -> Node | None:
        """f(x), and f^{-1}(x): an unknown function, and no product. None where no bracket follows at once."""
        ahead, name = 0, letter
        if [self.peek(place).text for place in range(5)] == ["^", "{", "-", "1", "}"]:
            ahead, name = 5, f"{letter}^-1"
        bracket = self.peek(ahead)
        if bracket.text != "(" or bracket.spaced:
            return None
        self.position += ahead
        inner = self.atom()
        return Node("opaque", f"call {name}", inner.args if inner.op == "seq" else (inner,))

    def words(self, text: str) -> Node:
        text = text.strip()
        if text in FUNCTIONS and text not in ("max", "min", "sign", "arg", "det"):
            return self.function(FUNCTIONS[text])
        if len(text) == 1 and text.isalpha() and text.islower() and self.position == 1 and self.token.kind != "end":
            return self.letter(text)
        if re.match(r"\\?[-+(.$€£¥₹]?\s?\d", text):
            self.tokens[self.position : self.position] = tokens(clean(text))[:-1]
            return self.prefix()
        unit = known(text) if self.token.kind == "number" else None
        if unit is not None and unit[1].keys() <= set(CURRENCIES):
            return mul(self.prefix(), Node("text", text))
        return Node("text", text)

    def _bracketed(self, opening: str) -> Node:
        return self.sequence(opening, ")", "]")

    def sequence(self, opening: str, *closers: str) -> Node:
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

    def braced(self, closing: str) -> Node:
        """A set; braces around one formula without a backslash only group it."""
        if self.accept(closing):
            return Node("set")
        bars, self.bars = self.bars, 0
        separate, self.commas_separate = self.commas_separate, True
        condition = self._takes_condition() if closing != "}" else None
        node = self.items()
        if closing == "}":
            node = self.over(node)
        self.bars, self.commas_separate = bars, separate
        if condition is not None:  # {x : x > 2} is what x > 2 says
            self.expect(closing)
            if not node.has("rel") or node.symbols() != {condition}:
                raise UnknownNotation("a set is given by a condition")
            return node
        if self.token.text in _SUCH_THAT:
            raise UnknownNotation("a set is given by a condition")
        self.expect(closing)
        if node.op == "list":
            return Node("set", None, node.args)
        return node if closing == "}" else Node("set", None, (node,))

    def _takes_condition(self) -> str | None:
        """The variable of a set that begins with "x :" or "x in R :", which are then read; None for other sets."""
        ahead = 1
        if [self.peek(place).text for place in range(1, 6)] == ["\\in", "\\mathbb", "{", "R", "}"]:
            ahead = 6
        variable = self.token
        if variable.kind != "word" or self.peek(ahead).text not in _SUCH_THAT:
            return None
        self.position += ahead + 1
        return variable.text

    def _bars(self) -> Node:
        self.bars += 1
        inner = self.items()
        self.bars -= 1
        self.expect("|")
        return fn("abs", inner)


def _proper_fraction(node: Node) -> Fraction | None:
    """The value of a fraction between 0 and 1 written with numbers, as in a mixed number."""
    if node.op == "num" and 0 < node.number < 1:
        return node.number
    return None
