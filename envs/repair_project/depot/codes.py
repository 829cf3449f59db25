"""Article codes: 13 digits, the last of which checks the others; and short codes of letters."""

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def check_digit(digits):
    """The digit that makes a weighted sum of the digits and itself a multiple of ten: weights 1 and 3 in turn."""
    total = sum(int(digit) * (3 if place % 2 == 1 else 1) for place, digit in enumerate(digits))
    return -total % 10


def is_valid(code):
    """Whether a code has 13 digits, and the last is the check digit of the others."""
    return len(code) == 13 and code.isdigit() and int(code[12]) == check_digit(code[:12])


def short(number):
    """The short code of a number from 0: A to Z without I and O, then AA, AB and so on."""
    text = ""
    number += 1
    while number > 0:
        number, place = divmod(number - 1, len(LETTERS))
        text = LETTERS[place] + text
    return text


def number_of(text):
    """The number of a short code. Raises ValueError where it is empty, or has another letter."""
    if not text or any(letter not in LETTERS for letter in text):
        raise ValueError("no short code: " + text)
    number = 0
    for letter in text:
        number = number * len(LETTERS) + LETTERS.index(letter) + 1
    return number - 1


def mask(code, shown=4):
    """A code with a star for each character but the last few."""
    hidden = max(len(code) - shown, 0)
    return "*" * hidden + code[hidden:]


def groups(code, size=3):
    """A code in groups of some characters, counted from its end, with a space between them."""
    found = []
    while len(code) > size:
        found.insert(0, code[len(code) - size :])
        code = code[: len(code) - size]
    return " ".join([code, *found])
