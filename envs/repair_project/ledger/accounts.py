"""Bookings: [date, account, cents], in any order."""

from . import calendar


def balance(bookings, account, until=None):
    """The sum of an account; until: the last day that counts."""
    return sum(cents for date, name, cents in bookings if name == account and (until is None or date <= until))


def balances(bookings):
    """The sum of each account, by name, without those that are even."""
    sums = {}
    for _, name, cents in bookings:
        sums[name] = sums.get(name, 0) + cents
    return {name: total for name, total in sorted(sums.items()) if total != 0}


def lowest(bookings, account):
    """The lowest balance that an account had at the end of a day, and 0 before its first booking."""
    low, running = 0, 0
    own = sorted((date, cents) for date, name, cents in bookings if name == account)
    for index, (date, cents) in enumerate(own):
        running += cents
        last_of_day = index + 1 == len(own) or own[index + 1][0] != date
        if last_of_day and running < low:
            low = running
    return low


def interest(bookings, account, rate, first, last):
    """Interest in cents for a year of 365 days at a whole percentage; each day's balance counts, from the first day to
    the day before the last. Rounded down."""
    earned, day = 0, first
    while day < last:
        earned += balance(bookings, account, day) * rate
        day = calendar.add_days(day, 1)
    return earned // 36500


def due(invoices, today, days=30):
    """Numbers of the invoices [number, date, open cents] whose time to pay is over, the oldest first."""
    late = [(date, number) for number, date, left in invoices if left > 0 and calendar.add_days(date, days) < today]
    return [number for _, number in sorted(late)]


def by_month(bookings, account):
    """The sums of an account by month, "2024-02": every month from its first booking to its last, also the empty."""
    own = sorted((date, cents) for date, name, cents in bookings if name == account)
    if not own:
        return {}
    sums, month = {}, own[0][0][:7]
    while month <= own[-1][0][:7]:
        sums[month] = sum(cents for date, cents in own if date[:7] == month)
        month = calendar.add_months(month + "-01", 1)[:7]
    return sums
