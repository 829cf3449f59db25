"""The pairs on which verifiers are compared are many, always the same, and sound.

Soundness is checked by a reader of LaTeX of its own, which calculates with 60 digits (10,000 where they are not enough)
and shares nothing with the generators or the verifiers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
from mpmath import mp, mpc, mpf

from benchmarks.__main__ import main
from benchmarks.math_pairs import find_golds, math_pairs
from benchmarks.measure import BenchmarkError
from benchmarks.options import REPOSITORY
from benchmarks.table import Table
from benchmarks.verifier_table.golds import Golds, rational, read_golds
from benchmarks.verifier_table.pair import Draft, Expected, Pair, Type
from benchmarks.verifiers import END, START, markdown, write_section

LEAST = 20


@pytest.fixture(scope="module")
def golds(shared_data: Path) -> Golds:
    return read_golds(shared_data)


@pytest.fixture(scope="module")
def pairs(golds: Golds) -> list[Pair]:
    return math_pairs(golds)


@pytest.fixture(scope="module")
def types(pairs: list[Pair]) -> dict[tuple[Expected, str], list[Pair]]:
    found = defaultdict(list)
    for pair in pairs:
        found[pair.expected, pair.type].append(pair)
    return found


# --- how many, and always the same ---------------------------------------------------------------------------------


def test_every_type_has_its_pairs(types: dict[tuple[Expected, str], list[Pair]]) -> None:
    assert {kind: len(rows) for kind, rows in types.items() if len(rows) < LEAST} == {}
    counts = Counter(expected for expected, _ in types)
    assert counts[Expected.SAME] >= 100 and counts[Expected.DIFFERENT] >= 70 and counts[Expected.AMBIGUOUS] >= 10


def test_gold_against_itself_has_every_gold(types: dict[tuple[Expected, str], list[Pair]]) -> None:
    sizes = Counter(len(rows) for (_, name), rows in types.items() if " itself, " in name)
    assert sizes == {500: 5, 1319: 5}


def test_a_name_says_whether_golds_are_made(types: dict[tuple[Expected, str], list[Pair]]) -> None:
    for (_, name), rows in types.items():
        made = sum(pair.source == "made" for pair in rows)
        assert name.endswith(" (made)") == (made == len(rows)), name
        assert name.endswith(" (partly made)") == (0 < made < len(rows)), name


def test_no_response_is_claimed_to_be_both_right_and_wrong(pairs: list[Pair]) -> None:
    same = {(pair.gold, pair.response) for pair in pairs if pair.expected is Expected.SAME}
    different = {(pair.gold, pair.response) for pair in pairs if pair.expected is Expected.DIFFERENT}
    assert not same & different


PRINT_HASH = """
import hashlib, sys
from pathlib import Path
from benchmarks.math_pairs import math_pairs
from benchmarks.verifier_table.golds import read_golds
print(hashlib.sha256(repr(math_pairs(read_golds(Path(sys.argv[1])))).encode()).hexdigest())
"""


def test_pairs_do_not_depend_on_the_hash_seed(pairs: list[Pair], shared_data: Path) -> None:
    here = hashlib.sha256(repr(pairs).encode()).hexdigest()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", PRINT_HASH, str(shared_data)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
        assert done.stdout.strip() == here, done.stderr


def test_another_seed_gives_other_pairs(golds: Golds, pairs: list[Pair]) -> None:
    other = {(pair.gold, pair.response) for pair in math_pairs(golds, seed=1) if " itself, " not in pair.type}
    assert len(other - {(pair.gold, pair.response) for pair in pairs}) > len(other) / 2


def test_a_generator_that_only_repeats_itself_ends() -> None:
    def repeat(golds: Golds, rng: Random) -> Iterator[Draft]:
        while True:
            yield Draft("1", "1.0")

    (pair,) = Type("repeated", Expected.SAME, repeat).pairs(Golds((), ()), seed=0, enough=5)
    assert pair == Pair("1", "1.0", "The answer is $\\boxed{1.0}$.", Expected.SAME, "repeated (made)", "made")


# --- golds ---------------------------------------------------------------------------------------------------------


def test_rational_reads_what_is_one_number() -> None:
    read = {text: rational(text) for text in ("-\\frac{3}{8}", "\\frac 59", ".35625", "11,\\! 111,\\! 100", "7")}
    assert [str(value) for value in read.values()] == ["-3/8", "5/9", "57/160", "11111100", "7"]
    assert [rational(text) for text in ("1,-2", "52_8", "90^\\circ", "5\\%", "x=5", "1\\frac{4}{5}")] == [None] * 6


def test_absent_golds_are_named_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="set LUDUS_DATA to the folder of both"):
        find_golds(tmp_path)


# --- sound ---------------------------------------------------------------------------------------------------------


class Unread(Exception):
    """What the reader does not know."""


TOKEN = re.compile(r"\d+\.?\d*|\.\d+|\\[a-zA-Z]+|\\.|[a-zA-Z]|\S")
DROPPED = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|[,;:! ]|quad)(?![a-zA-Z])|~")
LETTERS = {"\\theta", "\\alpha"}
CALLS = {"sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "cot": mp.cot, "sec": mp.sec, "ln": mp.log, "exp": mp.exp}
CALLS |= {"arcsin": mp.asin, "arccos": mp.acos, "arctan": mp.atan}
INVERSE = {"sin": mp.asin, "cos": mp.acos, "tan": mp.atan}


class Reader:
    """Calculates an expression in LaTeX; every letter but e and i has a value of its own, drawn by `point`."""

    def __init__(self, text: str, point: int) -> None:
        text = re.sub(r"(?<=\d),(?:\\!)? ?(?=\d{3}(?!\d))|(?<=\d)\{,\}(?=\d)", "", text)
        self.tokens = TOKEN.findall(DROPPED.sub(" ", text))
        self.place, self.point = 0, point

    def value(self) -> mpc:
        result = self.sum()
        if self.place < len(self.tokens):
            raise Unread(self.peek())
        return mpc(result)

    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise Unread(f"{token} for {wanted}")
        self.place += 1
        return token

    def sum(self) -> mpc:
        result = mpc(0)
        while True:
            sign = 1
            while self.peek() in ("+", "-"):
                sign = -sign if self.take() == "-" else sign
            result += sign * self.product()
            if self.peek() not in ("+", "-"):
                return result

    def product(self) -> mpc:
        result = self.power()
        while True:
            if self.peek() in ("\\cdot", "\\times", "*", "/"):
                divide = self.take() == "/"
                factor = self.power()
                result = result / factor if divide else result * factor
            elif self.starts():
                if all(re.fullmatch(r"[\d.]+", token) for token in self.tokens[self.place - 1 : self.place + 1]):
                    raise Unread("two numbers side by side")
                whole = re.fullmatch(r"\d+", self.tokens[self.place - 1])
                mixed = whole and re.fullmatch(r"\\[dtc]?frac", self.peek()) and self.digits_follow()
                factor = self.power()
                result = result + factor if mixed else result * factor
            else:
                return result

    def digits_follow(self) -> bool:
        return bool(re.match(r"(\{\d+\}|\d)(\{\d+\}|\d)?$", "".join(self.tokens[self.place + 1 : self.place + 7])))

    def starts(self) -> bool:
        token = self.peek()
        return bool(re.match(r"[\d.(a-zA-Z{|]|\\(?!pm|cup|cap|in|le|ge|[,{}])", token)) and not self.closes()

    def closes(self) -> bool:
        return self.peek() == "|" and self.inside

    inside = False

    def power(self) -> mpc:
        base = self.atom()
        while self.peek() in ("^", "!", "\\%"):
            mark = self.take()
            if mark == "!":
                base = mp.factorial(base)
            elif mark == "\\%":
                base /= 100
            elif "\\circ" in self.tokens[self.place : self.place + 2]:
                while self.take() != "\\circ":
                    pass
                if self.peek() == "}":
                    self.take()
                base *= mp.pi / 180
            else:
                base = base ** self.group()
        return base

    def group(self) -> mpc:
        """What stands in braces, or one token."""
        if self.peek() == "{":
            self.take()
            result = self.sum()
            self.take("}")
            return result
        if re.fullmatch(r"\d+", self.peek()) and len(self.peek()) > 1:
            digits = self.tokens[self.place]
            self.tokens[self.place : self.place + 1] = list(digits)
        return self.atom()

    def atom(self) -> mpc:
        token = self.take()
        if re.match(r"[\d.]", token) and token != ".":
            return mpf(token)
        if token in ("(", "{", "["):
            result = self.sum()
            self.take({"(": ")", "{": "}", "[": "]"}[token])
            return result
        if token == "|":
            self.inside = True
            result = abs(self.sum())
            self.inside = False
            self.take("|")
            return result
        if re.fullmatch(r"[a-zA-Z]", token) or token in LETTERS:
            return self.letter(token)
        return self.command(token)

    def letter(self, token: str) -> mpc:
        if token == "e":
            return mp.e
        if token == "i":
            return mpc(0, 1)
        size = mpf(Random(f"{token}/{self.point}").randint(10**20, 9 * 10**20)) / 10**20
        return {1: size, 2: -size - 50, 3: 100 * size}[self.point]

    def command(self, token: str) -> mpc:
        if re.fullmatch(r"\\[dtc]?frac", token):
            return self.group() / self.group()
        if token == "\\sqrt":
            degree = mpf(2)
            if self.peek() == "[":
                self.take()
                degree = self.sum()
                self.take("]")
            return mp.sqrt(self.group()) if degree == 2 else self.group() ** (1 / degree)
        if token == "\\pi":
            return mp.pi
        if token in ("\\binom", "\\dbinom"):
            return mp.binomial(self.group(), self.group())
        if token == "\\operatorname":
            self.take("{")
            name = ""
            while self.peek() != "}":
                name += self.take()
            self.take("}")
            return self.call(name)
        if token == "\\log":
            self.take("_")
            base = self.group()
            return self.argument(mp.log) / mp.log(base)
        return self.call(token[1:])

    def call(self, name: str) -> mpc:
        if name not in CALLS:
            raise Unread(name)
        if self.peek() == "^":
            self.take()
            exponent = self.group()
            if exponent == -1:
                return self.argument(INVERSE[name])
            return self.argument(CALLS[name]) ** exponent
        return self.argument(CALLS[name])

    def argument(self, function: object) -> mpc:
        if self.peek() in ("(", "{"):
            return function(self.atom())  # type: ignore[operator]
        sign = 1
        if self.peek() == "-":
            self.take()
            sign = -1
        result = self.power()
        while self.starts() and not (self.peek()[:1] == "\\" and self.peek()[1:] in CALLS):
            result *= self.power()
        return function(sign * result)  # type: ignore[operator]


POINTS = (1, 2, 3)


def read(text: str) -> tuple[str, list[list[mpc]]]:
    """What a text is: brackets and relation as a shape, and its values at three points (a list's in an order)."""
    shape, parts = "value", [text]
    if text.count("=") == 1 and not re.search(r"[,<>]", text):
        left, right = text.split("=")
        shape, parts = "equation", [f"({left})-({right})"]
    elif found := re.fullmatch(r"(?:\\left ?)?([(\[]) ?(.*?) ?(?:\\right ?)?([)\]])", text):
        if "," in found[2] and not re.search(r"[()\[\]]", found[2]):
            shape, parts = found[1] + found[3], found[2].split(",")
    elif re.search(r", ?", text) and not re.search(r"\d,(\\!)? ?\d{3}", text):
        shape, parts = "list", text.split(",")
    if re.search(r"\\infty|(?<![\\a-zA-Z{])([a-zA-Z]{3}|pi|[ck]m|kg)|\d[eE]-?\d", text):
        raise Unread("infinity, a word, or a number with e")
    values = [[Reader(part, point).value() for point in POINTS] for part in parts]
    if shape == "list":
        values.sort(key=lambda row: (float(row[0].real), float(row[0].imag)))
    return shape, values


def equal(first: str, second: str, digits: int) -> bool:
    """Whether both texts are one value, list or tuple, or equations with the same solutions (proportional ones)."""
    with mp.workdps(digits):
        (shape, ours), (other, theirs) = read(first), read(second)
        if {shape, other} == {"equation", "value"}:
            raise Unread("an equation and a value")
        if shape != other or len(ours) != len(theirs):
            return False
        near = mpf(10) ** (8 - digits)
        if shape == "equation":
            (a,), (b,) = ours, theirs
            return all(abs(a[0] * b[k] - a[k] * b[0]) <= near * (1 + abs(a[0] * b[k])) for k in (1, 2))
        return all(
            abs(a - b) <= near * max(abs(a), abs(b))
            for x, y in zip(ours, theirs, strict=True)
            for a, b in zip(x, y, strict=True)
        )


def verdict(pair: Pair) -> bool | None:
    """Whether gold and answer are equal; None where the reader cannot read one of them."""
    try:
        found = equal(pair.gold, pair.answer, 60)
        return equal(pair.gold, pair.answer, 10_000) if found and pair.expected is Expected.DIFFERENT else found
    except (Unread, KeyError, ValueError, ZeroDivisionError, TypeError):
        return None


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("1\\frac{4}{5}", "\\frac{9}{5}", True),
        ("\\frac43", "1.3", False),
        ("2\\sin 3x \\cos 3x", "\\sin 6x", True),
        ("\\frac{1}{2}x", "\\frac{1}{2x}", False),
        ("-2^2", "-4", True),
        ("90^\\circ", "\\frac{\\pi}{2}", True),
        ("3x-y+13=0", "3x+4y+14=0", False),
        ("y = 2x + 3", "2x - y + 3 = 0", True),
        ("1,-2", "-2, 1", True),
        ("(1,-2)", "(-2,1)", False),
        ("[1, 2)", "[1, 2]", False),
        ("10,\\!080", "10080", True),
        ("|x - 4| + 1", "\\left|4 - x\\right| + 1", True),
        ("\\sqrt[3]{8}", "2", True),
        ("\\log_2 8", "3", True),
        ("15\\%", "0.15", True),
    ],
)
def test_the_reader_of_this_test_calculates(first: str, second: str, same: bool) -> None:
    assert equal(first, second, 60) is same


def test_pairs_mean_what_they_claim(types: dict[tuple[Expected, str], list[Pair]]) -> None:
    checked, wrong, kinds = Counter[Expected](), [], Counter[Expected]()
    for (expected, name), rows in types.items():
        if expected is Expected.AMBIGUOUS or " itself, " in name or name.startswith("response"):
            continue
        found = [(pair, answer) for pair in rows[:25] if (answer := verdict(pair)) is not None]
        wrong += [pair for pair, answer in found if answer is not (expected is Expected.SAME)]
        checked[expected] += len(found)
        kinds[expected] += len(found) >= 5
    assert wrong == []
    assert checked[Expected.SAME] > 1000 and checked[Expected.DIFFERENT] > 900
    assert kinds[Expected.SAME] > 45 and kinds[Expected.DIFFERENT] > 40


NUMBER = r"-?(?:\\frac\{\d+\}\{\d+\}|\d+)"
RELATIONS = {"<": lambda a, b: a < b, "\\le": lambda a, b: a <= b, ">": lambda a, b: a > b, "\\ge": lambda a, b: a >= b}
RELATIONS |= {"=": lambda a, b: a == b, "\\neq": lambda a, b: a != b}


def number(text: str) -> Fraction:
    top, bottom = ([*re.findall(r"\d+", text), "1"])[:2]
    return -Fraction(int(top), int(bottom)) if text.strip()[0] == "-" else Fraction(int(top), int(bottom))


def contains(text: str, x: Fraction) -> bool:
    """Whether a set of numbers, written with brackets or as a condition on x, contains a number."""
    if "\\cup" in text or "\\text{ or }" in text:
        return any(contains(part, x) for part in re.split(r"\\cup|\\text\{ or \}", text))
    if "\\cap" in text:
        return all(contains(part, x) for part in text.split("\\cap"))
    if "\\setminus" in text:
        return x != number(text.split("\\setminus")[1].strip(" \\{}"))
    text = re.sub(r"\\left|\\right|x \\in(?! \\m)", "", text).strip()
    if found := re.fullmatch(rf"([(\[]) ?(-\\infty|{NUMBER}), ?({NUMBER}|\\infty)([)\]])", text):
        left, low, high, right = found.groups()
        above = "infty" in low or number(low) < x or (left == "[" and number(low) == x)
        return above and ("infty" in high or x < number(high) or (right == "]" and number(high) == x))
    text = re.sub(r"\\\{x (?:\\mid|:|\\in \\mathbb\{R\} :)(.*)\\\}", r"\1", text)
    text = re.sub(r"\\(l|g)e(qslant|q)", r"\\\1e", text).replace("<=", "\\le").replace(">=", "\\ge")
    parts = re.split(r"(\\[lg]e|\\neq|[<>=])", text)
    values = [x if part.strip() == "x" else number(part) for part in parts[::2]]
    return all(RELATIONS[sign](values[i], values[i + 1]) for i, sign in enumerate(parts[1::2]))


def test_sets_of_numbers_mean_what_they_claim(types: dict[tuple[Expected, str], list[Pair]]) -> None:
    checked = Counter[Expected]()
    for (expected, name), rows in types.items():
        if not re.search(r"interval|inequality|union|< for", name) or expected is Expected.AMBIGUOUS:
            continue
        for pair in rows:
            if re.search(r"[≤≥]|spelled|\+|spacing", pair.answer + name) and "signs" not in name:
                continue
            ends = [number(text) for text in re.findall(NUMBER, f"{pair.gold} {pair.answer}")]
            points = [end + shift for end in ends for shift in (Fraction(-1, 99), 0, Fraction(1, 99))]
            alike = all(contains(pair.gold, x) == contains(pair.answer, x) for x in points)
            assert alike is (expected is Expected.SAME), pair
            checked[expected] += 1
    assert checked[Expected.SAME] > 250 and checked[Expected.DIFFERENT] > 250, checked


def test_wrong_responses_do_not_end_in_the_gold(pairs: list[Pair]) -> None:
    rows = [pair for pair in pairs if pair.expected is Expected.DIFFERENT and pair.type.startswith("response")]
    alone = [pair for pair in rows if re.search(r"\\boxed\{([^{}]*)\}[^{}]*$", pair.response)]
    assert len(alone) > 200
    for pair in alone:
        (*_, last) = re.findall(r"\\boxed\{([^{}]*)\}", pair.response)
        if not re.search(r"or|side by side", pair.type):
            assert rational(last) is None or rational(last) != rational(pair.gold), pair


def count(table: dict[str, Any]) -> int:
    """The pairs of a table as it was kept."""
    return sum(row["n"] for row in table["rows"])


# --- the benchmark -------------------------------------------------------------------------------------------------


def test_the_benchmark_judges_both_and_keeps_what_was_misjudged(tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("math_verify")
    page = (REPOSITORY / "docs" / "verifiers.md").read_bytes()
    out = tmp_path / "results.json"
    assert main(["verifiers", "--quick", "--repetitions", "1", "--out", str(out), "--runs", str(tmp_path)]) == 0
    (record,) = json.loads(out.read_text())
    totals, same, different, arguable, speed = record["tables"]
    sizes = [row["n"] for row in totals["rows"]]
    assert [sum(sizes[:3]), sum(sizes[3:])] == [count(same), count(different)] and min(sizes) > 0
    rows = json.loads((tmp_path / "verifiers_misjudged.json").read_text(encoding="utf-8"))
    assert {row["expected"] for row in rows} <= {"same", "different", "ambiguous"}
    assert any(row["peer"] == "right" for row in rows) and len(arguable["rows"]) >= 10
    assert [row["processes"] for row in speed["rows"]] == [1, 2] * 3
    assert (REPOSITORY / "docs" / "verifiers.md").read_bytes() == page, "--quick wrote the page"


def test_a_page_keeps_what_stands_around_its_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{START}\nold\n{END}\n\nAfter.\n", encoding="utf-8")
    write_section(page, "new")
    assert page.read_text(encoding="utf-8") == f"Before.\n\n{START}\n\nnew\n{END}\n\nAfter.\n"
    bare = tmp_path / "bare.md"
    bare.write_text("Text.\n", encoding="utf-8")
    write_section(bare, "new")
    write_section(bare, "newer")
    assert bare.read_text(encoding="utf-8") == f"Text.\n\n{START}\n\nnewer\n{END}\n"


def test_markdown_shows_signs_that_it_could_take_for_its_own() -> None:
    table = Table("Title", {"type": "", "n": "d"}, [["<answer> x**2 \\[ a|b", 3]], ["A note."])
    line = "| \\<answer\\> x\\*\\*2 \\\\\\[ a\\|b | 3 |"
    assert markdown(table) == f"### Title\n\n| type | n |\n|---|---|\n{line}\n\nA note.\n"
