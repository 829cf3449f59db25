"""Programs of level 2: a rule with cases."""

from __future__ import annotations

import itertools
import math
from string import ascii_lowercase, ascii_uppercase

from .program_template import Draft, Draw, flat, listed, near, piled, template


def solve_number_base(text: str, *, base: int, width: int) -> str:
    """The numbers in another base, filled up with zeros."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    lines = []
    for number in map(int, text.split()):
        rest, written = abs(number), ""
        while rest > 0:
            rest, digit = divmod(rest, base)
            written = digits[digit] + written
        lines.append(("-" if number < 0 else "") + written.rjust(width, "0"))
    return "\n".join(lines)


@template(2, solve_number_base)
def number_base(d: Draw) -> Draft:
    """Integers written in another base."""
    base, width = d.number(3, 35), d.number(2, 6)
    digits = "the digits 0 to 9" + (" and the small letters from a on" if base > 10 else "")
    statement = (
        f"Each line of the input is an integer. Print each on a line of its own, written in base {base} with {digits}. "
        f"Put zeros in front of numbers that have fewer than {width} digits, and then a minus sign in front of "
        "negative ones."
    )
    turn = base ** (width - 1)
    inputs = ["0\n", f"{base}\n", piled([base - 1, -base]), piled([turn - 1, turn, -turn]), piled([1, -1])]
    inputs += [piled(d.numbers(d.number(2, 6), -(base**4), base**4)) for _ in range(4)]
    example = piled([base + 2, -1, d.number(100, 999)])
    slips = (*near("base", base), *near("width", width))
    return Draft(statement, {"base": base, "width": width}, slips, example, inputs)


def solve_run_lengths(text: str, *, least: int, joiner: str) -> str:
    """The runs of equal letters, the long ones as a count and a letter."""
    parts = []
    for letter, run in itertools.groupby(text.strip()):
        length = len(list(run))
        parts.append(f"{length}{letter}" if length >= least else letter * length)
    return joiner.join(parts)


@template(2, solve_run_lengths, "itertools")
def run_lengths(d: Draw) -> Draft:
    """Run-length encoding."""
    least, joiner = d.number(2, 6), d.pick("-_/+*.:=|~")
    statement = (
        "The input is one line of small letters, at least one. Split it into runs: the longest possible pieces of one "
        f"and the same letter. Write a run of {least} or more letters as its length followed by the letter, a shorter "
        f"one as it is. Print the runs in order, joined by the character {joiner}."
    )
    letters = "".join(d.sample(ascii_lowercase, 4))

    def line(runs: int) -> str:
        sizes = [least, least - 1, *d.numbers(runs, 1, least + 3)]
        return "".join(d.pick(letters) * size for size in d.rng.permutation(sizes).tolist()) + "\n"

    a, b = letters[0], letters[1]
    inputs = [f"{a}\n", f"{a * least}\n", f"{a * (least - 1)}{b}\n", f"{a * 12}{b * 10}{a}\n", f"{letters * 2}\n"]
    inputs += [line(d.number(2, 7)) for _ in range(4)]
    example = f"{a * (least + 1)}{b}{a * least}{b * (least - 1)}\n"
    return Draft(statement, {"least": least, "joiner": joiner}, near("least", least), example, inputs)


def solve_nested_brackets(text: str, *, pairs: str, depth: int) -> str:
    """Whether each line is balanced and not too deep."""
    opening_of = dict(zip(pairs[1::2], pairs[::2], strict=True))
    answers = []
    for line in text.split():
        good = True
        stack: list[str] = []
        for bracket in line:
            if bracket not in opening_of:
                stack.append(bracket)
                good = good and len(stack) <= depth
            elif not stack or stack.pop() != opening_of[bracket]:
                good = False
                break
        answers.append("yes" if good and not stack else "no")
    return "\n".join(answers)


def _nested(d: Draw, pairs: str, depth: int) -> str:
    """A balanced line, nested at most so deep."""
    line, open_ones = "", ""
    for _ in range(d.number(3, 12)):
        if open_ones and (len(open_ones) == depth or d.number(0, 2) == 0):
            line, open_ones = line + open_ones[-1], open_ones[:-1]
        else:
            kind = 2 * d.number(0, len(pairs) // 2 - 1)
            line, open_ones = line + pairs[kind], open_ones + pairs[kind + 1]
    return line + open_ones[::-1]


@template(2, solve_nested_brackets)
def nested_brackets(d: Draw) -> Draft:
    """Balanced brackets of several kinds."""
    pairs, depth = "".join(d.sample(("()", "[]", "{}", "<>"), d.number(2, 3))), d.number(2, 6)
    statement = (
        f"Each line of the input consists of brackets from {' '.join(pairs)} and has at least one. For each print yes "
        "where it is balanced, else no, on a line of its own. A line is balanced where every bracket that opens is "
        "closed later by the bracket of its kind, every bracket that closes has one that it closes, and what opens "
        f"last is closed first. In addition, at most {depth} brackets may be open at the same time."
    )
    a, z, b, y = list(pairs[:4])

    def mixed() -> str:
        lines = [_nested(d, pairs, depth), _nested(d, pairs, depth + 1), a * depth + z * depth, a + b + z + y]
        broken = _nested(d, pairs, depth)
        place = d.number(0, len(broken) - 1)
        lines += [broken[:place] + broken[place + 1 :], broken[:place] + d.pick(pairs) + broken[place + 1 :]]
        return piled(d.rng.permutation(lines[: d.number(4, 6)]).tolist())

    inputs = [
        f"{a}\n",
        f"{z}{a}\n",
        f"{a}{z}{b}{y}\n",
        piled([a * depth + z * depth, b * (depth + 1) + y * (depth + 1)]),
    ]
    inputs += [mixed() for _ in range(5)]
    example = piled([_nested(d, pairs, depth), f"{a}{b}{z}{y}", a * (depth + 1) + z * (depth + 1)])
    return Draft(statement, {"pairs": pairs, "depth": depth}, near("depth", depth), example, inputs)


def solve_divisor_pairs(text: str, *, bound: int) -> str:
    """How many pairs have a greatest common divisor above the bound."""
    numbers = [int(word) for word in text.split()]
    return str(sum(math.gcd(a, b) > bound for a, b in itertools.combinations(numbers, 2)))


@template(2, solve_divisor_pairs, "itertools", "math")
def divisor_pairs(d: Draw) -> Draft:
    """Greatest common divisors of pairs."""
    bound = d.number(1, 40)
    statement = (
        "The input is one line of positive integers, separated by spaces. Count the pairs of numbers at two different "
        f"places in the line whose greatest common divisor is greater than {bound}, and print the count. A pair counts "
        "once, not once in each order; equal numbers at different places are a pair, too."
    )

    def line(more: int) -> str:
        own = [unit * d.number(1, 6) for unit in (bound, bound, bound + 1, bound + 1)] + d.numbers(more, 1, 12)
        own += [bound * d.number(1, 4) * d.number(1, 4) for _ in range(d.number(0, more))]
        return flat(d.rng.permutation(own).tolist())

    inputs = [
        flat([bound]),
        flat([bound, bound]),
        flat([bound + 1] * 3),
        flat([1, 2, 3, 5, 7, 11]),
    ]
    inputs += [line(5) for _ in range(4)]
    return Draft(statement, {"bound": bound}, near("bound", bound), line(1), inputs)


def solve_marked_columns(text: str, *, divisor: int, mark: str) -> str:
    """The columns as rows, with multiples marked."""
    rows = [line.split() for line in text.strip().split("\n")[1:]]
    lines = []
    for column in zip(*rows, strict=True):
        lines.append(" ".join(mark if int(cell) % divisor == 0 else cell for cell in column))
    return "\n".join(lines)


@template(2, solve_marked_columns)
def marked_columns(d: Draw) -> Draft:
    """A matrix transposed."""
    divisor, mark = d.number(2, 9), d.pick("*#x_=@%&")
    statement = (
        "The first line of the input has the numbers of rows and of columns of a table of integers; each further line "
        "is a row, with its numbers separated by spaces. Print the table with rows and columns exchanged: the first "
        f"line is the first column from top to bottom, and so on. In the place of every multiple of {divisor} print "
        f"{mark} (0 is a multiple of every number)."
    )

    def table(rows: int, columns: int) -> str:
        return flat([rows, columns]) + "".join(flat(d.numbers(columns, -40, 40)) for _ in range(rows))

    inputs = [
        flat([1, 1]) + flat([divisor]),
        table(1, d.number(2, 6)),
        table(d.number(2, 6), 1),
        table(3, 3),
    ]
    inputs += [table(d.number(2, 5), d.number(2, 6)) for _ in range(4)]
    slips = ({"divisor": divisor + 1}, {"mark": "0"}, {"divisor": 2 * divisor})
    return Draft(statement, {"divisor": divisor, "mark": mark}, slips, table(2, 3), inputs)


def solve_calm_stretch(text: str, *, step: int) -> str:
    """Length and place of the longest stretch without a large step."""
    numbers = [int(word) for word in text.split()]
    length, place, start = 1, 1, 0
    for i in range(1, len(numbers)):
        if abs(numbers[i] - numbers[i - 1]) > step:
            start = i
        if i - start + 1 > length:
            length, place = i - start + 1, start + 1
    return f"{length} {place}"


@template(2, solve_calm_stretch)
def calm_stretch(d: Draw) -> Draft:
    """The longest run."""
    step = d.number(1, 30)
    statement = (
        "The input is one line of at least one integer, separated by spaces. Find the longest stretch of neighbours in "
        f"it in which each number differs from the one before by at most {step}; a single number is a stretch of "
        "length 1. Print its length and the place of its first number, counted from 1, with a space between them. Of "
        "several longest stretches take the one that begins first."
    )

    def walk(least: int, most: int) -> str:
        steps = [d.pick((step, step, step + 1, step - 1, 3 * step + 2)) for _ in range(d.number(least, most))]
        signs = [d.pick((-1, 1)) for _ in steps]
        start = d.number(-50, 50)
        moves = [sign * size for sign, size in zip(signs, steps, strict=True)]
        return flat(list(itertools.accumulate(moves, initial=start)))

    inputs = [
        flat([d.number(-9, 9)]),
        flat([0, step, 0]),
        flat([0, step + 1, 0]),
        flat([5] * d.number(4, 7)),
    ]
    inputs += [walk(5, 14) for _ in range(5)]
    return Draft(statement, {"step": step}, near("step", step), walk(4, 6), inputs)


def solve_roman_signs(text: str, *, signs: str, subtract: bool) -> str:
    """The numbers in numerals like the Roman ones."""
    table = list(zip((1, 5, 10, 50, 100, 500, 1000), signs, strict=True))
    if subtract:
        for i, unit in ((0, 1), (2, 10), (4, 100)):
            table += [(4 * unit, signs[i] + signs[i + 1]), (9 * unit, signs[i] + signs[i + 2])]
    lines = []
    for number in map(int, text.split()):
        written = ""
        for value, sign in sorted(table, reverse=True):
            count, number = divmod(number, value)
            written += sign * count
        lines.append(written)
    return "\n".join(lines)


@template(2, solve_roman_signs)
def roman_signs(d: Draw) -> Draft:
    """Roman numerals with other letters."""
    signs = "".join(d.rng.permutation(list(ascii_uppercase))[:7].tolist())
    subtract = bool(d.number(0, 1))
    four, nine = (signs[:2], signs[0] + signs[2]) if subtract else (signs[0] * 4, signs[1] + signs[0] * 4)
    rule = (
        "4, 9, 40, 90, 400 and 900 are written as two letters, the smaller one in front of the larger one"
        if subtract
        else "No smaller letter stands in front of a larger one"
    )
    statement = (
        "Each line of the input is an integer from 1 to 3999. Print each on a line of its own as a numeral of the kind "
        f"the Romans had, but with the letters {listed(signs)} for 1, 5, 10, 50, 100, 500 and 1000. Letters stand in "
        f"order from the largest value to the smallest, as few as possible. {rule}: 4 is {four} and 9 is {nine}."
    )
    inputs = ["1\n", "3999\n", piled([4, 9, 40, 90, 400, 900]), piled([5, 10, 50, 100, 500, 1000]), "1994\n"]
    inputs += [piled(d.numbers(d.number(2, 5), 1, 3999)) for _ in range(4)]
    swapped = signs[1] + signs[0] + signs[2:]
    slips = ({"subtract": not subtract}, {"signs": swapped})
    example = piled([d.number(10, 30), d.number(1000, 3000)])
    return Draft(statement, {"signs": signs, "subtract": subtract}, slips, example, inputs)


def solve_prime_values(text: str, *, factor: int, offset: int) -> str:
    """How many numbers of each range give a prime."""

    def is_prime(number: int) -> bool:
        return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))

    counts = []
    for line in text.strip().split("\n"):
        low, high = map(int, line.split())
        counts.append(sum(is_prime(factor * n + offset) for n in range(low, high + 1)))
    return "\n".join(map(str, counts))


@template(2, solve_prime_values, "math")
def prime_values(d: Draw) -> Draft:
    """Primes of a linear form, counted."""
    factor = d.number(2, 9)
    offset = d.pick([n for n in range(1, 31) if math.gcd(n, factor) == 1])
    statement = (
        "Each line of the input has two integers a and b, separated by a space, with 0 <= a <= b <= 300. For each "
        "print, on a line of its own, how many integers n from a to b, both included, there are for which "
        f"{factor} * n + {offset} is a prime number. (1 is no prime number.)"
    )
    prime = next(n for n in range(1, 99) if solve_prime_values(f"{n} {n}", factor=factor, offset=offset) == "1")
    inputs = [
        flat([0, 0]),
        flat([prime, prime]),
        flat([0, 300]),
        flat([0, prime]) + flat([prime, prime + 9]),
    ]
    for _ in range(4):
        lows = d.numbers(d.number(1, 4), 0, 250)
        inputs.append("".join(flat([low, low + d.number(0, 50)]) for low in lows))
    example = flat([0, d.number(2, 9)]) + flat([d.number(5, 20), d.number(21, 40)])
    slips = (*near("offset", offset), {"factor": factor + 1})
    return Draft(statement, {"factor": factor, "offset": offset}, slips, example, inputs)
