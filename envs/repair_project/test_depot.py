import unittest

from depot import codes, moves, spans, ways


class CodesTest(unittest.TestCase):
    def test_valid(self):
        self.assertTrue(codes.is_valid("4006381333931"))

    def test_short(self):
        self.assertEqual(codes.short(0), "A")


class SpansTest(unittest.TestCase):
    def test_merge(self):
        self.assertEqual(spans.merge([[5, 6], [1, 2]]), [[1, 2], [5, 6]])


class MovesTest(unittest.TestCase):
    def test_on_hand(self):
        self.assertEqual(moves.on_hand([["nut", 5, 10], ["nut", -2, 0], ["bolt", 1, 3]], "nut"), 3)


class WaysTest(unittest.TestCase):
    def test_steps(self):
        self.assertEqual(ways.steps(["..", ".."], [0, 0], [1, 1]), 2)


if __name__ == "__main__":
    unittest.main()
