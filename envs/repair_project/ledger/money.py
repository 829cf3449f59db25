"""Amounts of money in whole cents."""


def parse(text):
    """Cents of a text such as "12.34", "-3", "0.5" or "1,234.50". Raises ValueError for anything else."""
    sign = -1 if text.startswith("-") else 1
    whole, dot, rest = text.lstrip("-").replace(",", "").partition(".")
    if not whole.isdigit() or (dot and not rest.isdigit()) or len(rest) > 2:
        raise ValueError("no amount: " + text)
    return sign * (int(whole) * 100 + int((rest + "00")[:2]))


def show(cents):
    """The text of an amount, with two digits after the point and commas between thousands: "-1,234.50"."""
    sign = "-" if cents < 0 else ""
    whole, rest = divmod(abs(cents), 100)
    return f"{sign}{whole:,}.{rest:02d}"


def split(cents, parts):
    """Shares of an amount that differ by at most one cent, the larger ones first. parts: at least 1."""
    if parts < 1:
        raise ValueError("parts must be 1 or more")
    share, left = divmod(cents, parts)
    return [share + 1] * left + [share] * (parts - left)


def percent(cents, rate):
    """A whole percentage of an amount, rounded half up."""
    return (cents * rate + 50) // 100


def with_tax(cents, rate, free=0):
    """An amount with tax on what is above a free allowance."""
    taxed = max(cents - free, 0)
    return cents + percent(taxed, rate)


def change(paid, due, coins=(200, 100, 50, 20, 10, 5, 2, 1)):
    """The coins to give back, largest first. Raises ValueError where too little was paid."""
    left = paid - due
    if left < 0:
        raise ValueError("too little was paid")
    given = []
    for coin in coins:
        while left >= coin:
            given.append(coin)
            left -= coin
    return given
