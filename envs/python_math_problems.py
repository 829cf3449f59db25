"""Problems of ludus/PythonMath-v0 that want to be computed: exact answers, and the code that finds them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Problem:
    """text: ends with the question. answer: exact. code: what finds it, a piece for each call; the last piece ends with
    the answer as an expression. flawed: a last piece that makes a typical mistake, and so finds `mistaken`.
    """

    text: str
    answer: Fraction | int
    code: list[str]
    flawed: str
    mistaken: Fraction | int


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


_PRIME = "def is_prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))"


def _modular_power(rng: np.random.Generator) -> Problem:
    base, exponent, modulus = int(rng.integers(3, 99)), int(rng.integers(50, 900)), int(rng.integers(7, 400))
    text = f"What is the remainder when {base}^{exponent} is divided by {modulus}?"
    code = [f"pow({base}, {exponent}, {modulus})"]
    return Problem(
        text, pow(base, exponent, modulus), code, f"{base} * {exponent} % {modulus}", base * exponent % modulus
    )


def _multiples(rng: np.random.Generator) -> Problem:
    first, second = (int(number) for number in rng.choice(np.arange(3, 20), size=2, replace=False))
    last = int(rng.integers(200, 3_000))
    text = f"How many whole numbers from 1 to {last} are divisible by {first} or by {second}?"
    answer = sum(1 for n in range(1, last + 1) if n % first == 0 or n % second == 0)
    code = f"sum(1 for n in range(1, {last} + 1) if n % {first} == 0 or n % {second} == 0)"
    flawed = f"{last} // {first} + {last} // {second}"
    return Problem(text, answer, [code], flawed, last // first + last // second)


def _digit_sum(rng: np.random.Generator) -> Problem:
    number = int(rng.integers(20, 120))
    text = f"What is the sum of the decimal digits of {number}! (the factorial of {number})?"
    answer, mistaken = (sum(map(int, str(math.factorial(n)))) for n in (number, number - 1))
    code = ["import math", f"sum(int(d) for d in str(math.factorial({number})))"]
    return Problem(text, answer, code, f"sum(int(d) for d in str(math.factorial({number - 1})))", mistaken)


def _prime_after(rng: np.random.Generator) -> Problem:
    start, count = int(rng.integers(100, 5_000)), int(rng.integers(2, 9))
    primes = [number for number in range(start + 1, start + 2_000) if _is_prime(number)]
    text = (
        f"What is the {count}th prime number greater than {start}?"
        if count > 3
        else (f"What is the {'second' if count == 2 else 'third'} prime number greater than {start}?")
    )
    search = f"[n for n in range({start} + 1, {start} + 2000) if is_prime(n)]"
    return Problem(text, primes[count - 1], [_PRIME, f"{search}[{count - 1}]"], f"{search}[{count}]", primes[count])


def _divisors(rng: np.random.Generator) -> Problem:
    number = math.prod(
        int(p) ** int(rng.integers(1, 4)) for p in rng.choice([2, 3, 5, 7, 11, 13], size=3, replace=False)
    )
    text = f"How many positive divisors does {number} have?"
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    count = "sum((1 if d * d == n else 2) for d in range(1, int(n ** 0.5) + 1) if n % d == 0)"
    answer = sum((1 if d * d == number else 2) for d in small)
    return Problem(text, answer, [f"n = {number}", count], count.replace("range(1,", "range(2,"), answer - 2)


def _recurrence(rng: np.random.Generator) -> Problem:
    first, second, times, plus = (int(rng.integers(1, 9)) for _ in range(4))
    count, modulus = int(rng.integers(15, 60)), int(rng.integers(100, 1_000))
    terms = [first, second]
    while len(terms) <= count:
        terms.append(times * terms[-1] + plus * terms[-2])
    text = (
        f"A sequence begins with a(1) = {first} and a(2) = {second}, and a(n) = {times} a(n-1) + {plus} a(n-2) for "
        f"n > 2. What is the remainder when a({count}) is divided by {modulus}?"
    )
    loop = f"a, b = {first}, {second}\nfor _ in range({{}}):\n    a, b = b, {times} * b + {plus} * a\nb % {modulus}"
    right, wrong = terms[count - 1] % modulus, terms[count] % modulus
    return Problem(text, right, [loop.format(count - 2)], loop.format(count - 1), wrong)


def _solutions(rng: np.random.Generator) -> Problem:
    x, y, z = (int(rng.integers(2, 12)) for _ in range(3))
    total = int(rng.integers(60, 240))
    text = f"How many triples of whole numbers x, y, z, none of them negative, have {x}x + {y}y + {z}z = {total}?"
    pairs = [(i, j) for i in range(total // x + 1) for j in range((total - x * i) // y + 1)]
    found = [(i, j) for i, j in pairs if (total - x * i - y * j) % z == 0]
    code = (
        f"sum(({total} - {x} * i - {y} * j) % {z} == 0 for i in range({total} // {x} + 1) "
        f"for j in range(({total} - {x} * i) // {y} + 1))"
    )
    flawed = code.replace("range(", "range(1, ")
    return Problem(text, len(found), [code], flawed, sum(i > 0 and j > 0 for i, j in found))


def _series(rng: np.random.Generator) -> Problem:
    count, step = int(rng.integers(4, 12)), int(rng.integers(1, 5))
    text = f"What is the sum of 1/(k(k+{step})) for k from 1 to {count}? Answer with a fraction."
    terms = [Fraction(1, k * (k + step)) for k in range(1, count + 1)]
    code = ["from fractions import Fraction", f"sum(Fraction(1, k * (k + {step})) for k in range(1, {count} + 1))"]
    flawed = f"sum(Fraction(1, k * (k + {step})) for k in range(1, {count}))"
    return Problem(text, sum(terms, Fraction(0)), code, flawed, sum(terms[:-1], Fraction(0)))


def _dice(rng: np.random.Generator) -> Problem:
    sides = int(rng.integers(4, 11))
    target = int(rng.integers(sides, 2 * sides + 4))
    text = (
        f"Three fair dice with {sides} sides each, numbered from 1, are rolled. What is the probability that their sum "
        f"is exactly {target}? Answer with a fraction."
    )
    faces = range(1, sides + 1)
    sums = [a + b + c for a in faces for b in faces for c in faces]
    answer = Fraction(sums.count(target), sides**3)
    mistaken = Fraction(sum(one >= target for one in sums), sides**3)
    count = f"sum(a + b + c == {target} for a in faces for b in faces for c in faces)"
    code = ["from fractions import Fraction", f"faces = range(1, {sides} + 1)", f"Fraction({count}, {sides} ** 3)"]
    return Problem(text, answer, code, f"Fraction({count.replace('==', '>=')}, {sides} ** 3)", mistaken)


def _common(rng: np.random.Generator) -> Problem:
    factor = int(rng.integers(6, 60))
    a, b = (factor * int(number) for number in rng.choice(np.arange(5, 60), size=2, replace=False))
    text = f"What is the least common multiple of {a} and {b}?"
    return Problem(
        text, math.lcm(a, b), ["import math", f"math.lcm({a}, {b})"], f"{a} * {b} // {factor}", a * b // factor
    )


PROBLEMS: dict[str, tuple[int, Callable[[np.random.Generator], Problem]]] = {
    "modular power": (1, _modular_power),
    "least common multiple": (1, _common),
    "multiples": (1, _multiples),
    "digit sum": (2, _digit_sum),
    "prime after": (2, _prime_after),
    "divisors": (2, _divisors),
    "recurrence": (2, _recurrence),
    "solutions": (3, _solutions),
    "series": (3, _series),
    "dice": (3, _dice),
}
"""Level and maker, by name."""
