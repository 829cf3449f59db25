"""Programs of level 1: one loop."""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase

from .program_template import Draft, Draw, Parameters, flat, listed, near, template


def solve_sum_above(text: str, *, limit: int) -> str:
    """The sum of the numbers greater than the limit."""
    return str(sum(number for number in map(int, text.split()) if number > limit))


@template(1, solve_sum_above)
def sum_above(d: Draw) -> Draft:
    """A sum under a condition."""
    limit = d.number(3, 80)
    statement = (
        "The input is one line of integers, separated by spaces; the line may be empty. "
        f"Print the sum of those that are greater than {limit}."
    )

    def line(most: int) -> str:
        own = [limit, limit + 1, *d.numbers(d.number(2, most), limit - 12, limit + 12), *d.numbers(2, -200, 200)]
        return flat(d.rng.permutation(own).tolist())

    inputs = [
        "\n",
        flat([limit]),
        flat([limit + 1]),
        flat([-limit - 5, limit - 1, 0]),
        *(line(9) for _ in range(4)),
    ]
    return Draft(statement, {"limit": limit}, near("limit", limit), line(3), inputs)


def solve_letter_count(text: str, *, letters: str, capitals: bool) -> str:
    """How often the letters occur."""
    if capitals:
        text = text.lower()
    return str(sum(text.count(letter) for letter in letters))


@template(1, solve_letter_count)
def letter_count(d: Draw) -> Draft:
    """Letters of a set, counted."""
    letters, capitals = "".join(d.sample(ascii_lowercase, d.number(3, 5))), bool(d.number(0, 1))
    rule = "Capital letters count as well" if capitals else "Only small letters count"
    statement = (
        "The input is one line of text, which may be empty. "
        f"Print how many of its characters are one of the letters {listed(letters)}. {rule}."
    )
    many = letters * 4 + letters.upper() * 2 + ascii_lowercase + ascii_uppercase
    inputs = ["\n", f"{letters}\n", f"{letters.upper()}{letters[-1]}\n", "12 + 30 = 42!\n"]
    inputs += [d.sentence(many) + "\n" for _ in range(4)]
    slips = ({"letters": letters[:-1]}, {"letters": letters[1:]}, {"capitals": not capitals})
    return Draft(statement, {"letters": letters, "capitals": capitals}, slips, d.sentence(many) + "\n", inputs)


def solve_long_words(text: str, *, shortest: int, joiner: str) -> str:
    """The words, the long ones backwards."""
    return joiner.join(word[::-1] if len(word) >= shortest else word for word in text.split())


@template(1, solve_long_words)
def long_words(d: Draw) -> Draft:
    """Words reversed one by one."""
    shortest, joiner = d.number(2, 6), d.pick("-_/+*.:=|~")
    statement = (
        "The input is one line of words, separated by one or more spaces. Print the words in their order, joined by "
        f"the character {joiner} and without spaces; write each word of {shortest} or more letters backwards."
    )
    letters = ascii_lowercase[: d.number(6, 26)]

    def line(gap: str) -> str:
        sizes = [shortest, shortest - 1, *d.numbers(d.number(2, 6), 1, 8)]
        return gap.join(d.word(letters, max(size, 1), max(size, 1)) for size in sizes) + "\n"

    inputs = [f"{d.word(letters, size, size)}\n" for size in (1, shortest, shortest + 3)]
    inputs += [line("  "), *(line(" ") for _ in range(4))]
    slips = (*near("shortest", shortest), {"joiner": " "})
    return Draft(statement, {"shortest": shortest, "joiner": joiner}, slips, line(" "), inputs)


def solve_restarting_total(text: str, *, limit: int) -> str:
    """The running totals, which start again above the limit."""
    totals, total = [], 0
    for number in map(int, text.split()):
        total += number
        totals.append(total)
        if total > limit:
            total = 0
    return " ".join(map(str, totals))


@template(1, solve_restarting_total)
def restarting_total(d: Draw) -> Draft:
    """Running totals with a reset."""
    limit = d.number(5, 60)
    statement = (
        "The input is one line of at least one integer, separated by spaces. Keep a total that is 0 at first. For each "
        "number in turn, add it to the total and print the total, all on one line with a space between them; where the "
        f"total is then greater than {limit}, set it back to 0 before the next number."
    )

    def line(most: int) -> str:
        own = d.numbers(d.number(2, 5), -3, max(4, limit // 3))
        return flat([*own, limit - sum(own), *d.numbers(d.number(2, most), 1, limit)])

    inputs = [
        flat([0]),
        flat([limit, 1, 2]),
        flat([limit + 1, 1, 2]),
        flat([-3, limit + 3, 5, 1]),
    ]
    inputs += [line(7) for _ in range(4)]
    return Draft(statement, {"limit": limit}, near("limit", limit), line(3), inputs)


def solve_letter_shift(text: str, *, shift: int) -> str:
    """The text with each letter moved along the alphabet."""
    moved = []
    for char in text.rstrip("\n"):
        if "a" <= char <= "z":
            char = chr((ord(char) - ord("a") + shift) % 26 + ord("a"))
        elif "A" <= char <= "Z":
            char = chr((ord(char) - ord("A") + shift) % 26 + ord("A"))
        moved.append(char)
    return "".join(moved)


@template(1, solve_letter_shift)
def letter_shift(d: Draw) -> Draft:
    """A Caesar cipher."""
    shift = d.number(1, 25)
    statement = (
        f"The input is one line of text. Print it with each letter replaced by the one that stands {shift} places "
        "later in the alphabet, which starts again with a after z. Small letters stay small, capital letters stay "
        "capital, and every other character stays as it is."
    )
    inputs = ["a\n", "Zz\n", "- 12, 34!\n", f"{ascii_lowercase}\n", f"{ascii_uppercase} xyz\n"]
    *more, example = (d.sentence(ascii_lowercase * 3 + ascii_uppercase) + "\n" for _ in range(5))
    slips = (*near("shift", shift), {"shift": -shift})
    return Draft(statement, {"shift": shift}, slips, example, inputs + more)


def solve_word_multiples(text: str, *, first: int, second: int, words: list[str]) -> str:
    """The numbers from 1, with words in the place of multiples."""
    lines = []
    for number in range(1, int(text) + 1):
        said = ""
        if number % first == 0:
            said += words[0]
        if number % second == 0:
            said += words[1]
        lines.append(said or str(number))
    return "\n".join(lines)


@template(1, solve_word_multiples)
def word_multiples(d: Draw) -> Draft:
    """Words in the place of multiples of two numbers."""
    first = d.number(2, 5)
    second = d.number(first + 1, 9)
    words = d.sample(("Fizz", "Buzz", "Ping", "Pong", "Tick", "Tock", "Hip", "Hop", "Zig", "Zag"), 2)
    statement = (
        "The input is an integer n, at least 1. For each number from 1 to n print one line: "
        f"{words[0]} where the number is a multiple of {first}, {words[1]} where it is a multiple of {second}, "
        f"{''.join(words)} where it is a multiple of both, and otherwise the number itself."
    )
    sizes = [1, first, second, first * second, first * second - 1, *d.numbers(3, 10, 60)]
    slips: tuple[Parameters, ...] = ({"second": second + 1}, {"first": first - 1}, {"words": [words[1], words[0]]})
    parameters = {"first": first, "second": second, "words": words}
    example = flat([second + d.number(1, first)])
    return Draft(statement, parameters, slips, example, [flat([size]) for size in sizes])
