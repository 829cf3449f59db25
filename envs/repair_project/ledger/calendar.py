"""Dates as texts, "2024-02-29"; the Gregorian calendar."""

DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def is_leap(year):
    """Whether a year has a 29th of February."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def days_in(year, month):
    """How many days a month has, month from 1 to 12."""
    if month == 2 and is_leap(year):
        return 29
    return DAYS[month - 1]


def parse(text):
    """Year, month and day of a date. Raises ValueError where there is no such day."""
    year, month, day = (int(part) for part in text.split("-"))
    if not 1 <= month <= 12 or not 1 <= day <= days_in(year, month):
        raise ValueError("no such day: " + text)
    return [year, month, day]


def show(year, month, day):
    """The text of a date."""
    return f"{year:04d}-{month:02d}-{day:02d}"


def day_of_year(text):
    """The number of a day in its year, from 1."""
    year, month, day = parse(text)
    return sum(days_in(year, earlier) for earlier in range(1, month)) + day


def add_days(text, count):
    """The date some days later, or earlier where count is below 0."""
    year, month, day = parse(text)
    day += count
    while day > days_in(year, month):
        day -= days_in(year, month)
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    while day < 1:
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
        day += days_in(year, month)
    return show(year, month, day)


def add_months(text, count):
    """The same day some months later; the last day of that month where it has no such day."""
    year, month, day = parse(text)
    year, index = divmod(year * 12 + month - 1 + count, 12)
    return show(year, index + 1, min(day, days_in(year, index + 1)))


def between(first, last):
    """Days from one date to another; below 0 where the other is earlier."""
    if first > last:
        return -between(last, first)
    days, year = 0, parse(first)[0]
    while year < parse(last)[0]:
        days += 366 if is_leap(year) else 365
        year += 1
    return days + day_of_year(last) - day_of_year(first)
