import unittest

from ledger import accounts, calendar, money, tables


class MoneyTest(unittest.TestCase):
    def test_parse_and_show(self):
        self.assertEqual(money.parse("12.34"), 1234)
        self.assertEqual(money.show(123450), "1,234.50")

    def test_split(self):
        self.assertEqual(money.split(100, 3), [34, 33, 33])


class CalendarTest(unittest.TestCase):
    def test_add_days(self):
        self.assertEqual(calendar.add_days("2024-02-28", 1), "2024-02-29")

    def test_between(self):
        self.assertEqual(calendar.between("2024-01-01", "2024-03-01"), 60)


class AccountsTest(unittest.TestCase):
    def test_balance(self):
        bookings = [["2024-01-01", "cash", 500], ["2024-01-02", "bank", 70], ["2024-01-03", "cash", -200]]
        self.assertEqual(accounts.balance(bookings, "cash"), 300)


class TablesTest(unittest.TestCase):
    def test_wrap(self):
        self.assertEqual(tables.wrap("one two three", 7), ["one two", "three"])


if __name__ == "__main__":
    unittest.main()
