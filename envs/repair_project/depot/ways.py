"""Ways through a hall: rows of texts, where # is a shelf and all else is free; places are [row, column] from 0."""


def is_free(hall, place):
    """Whether a place lies in the hall and is no shelf."""
    row, column = place
    return 0 <= row < len(hall) and 0 <= column < len(hall[row]) and hall[row][column] != "#"


def neighbours(hall, place):
    """The free places above, to the left, to the right and below."""
    row, column = place
    around = [[row - 1, column], [row, column - 1], [row, column + 1], [row + 1, column]]
    return [one for one in around if is_free(hall, one)]


def steps(hall, start, end):
    """The fewest steps from one free place to another; None where no way leads there."""
    seen, front, count = [start], [start], 0
    while front:
        if end in front:
            return count
        found = []
        for place in front:
            for one in neighbours(hall, place):
                if one not in seen:
                    seen.append(one)
                    found.append(one)
        front, count = found, count + 1
    return None


def tour(hall, start, stops):
    """The stops in the order in which the nearest is next, the first given of several; none that no way leads to."""
    order, left, place = [], list(stops), start
    while left:
        ways = [(steps(hall, place, stop), index) for index, stop in enumerate(left)]
        ways = [way for way in ways if way[0] is not None]
        if not ways:
            break
        place = left.pop(min(ways)[1])
        order.append(place)
    return order


def longest_aisle(hall, row):
    """How many free places of a row lie side by side at most."""
    longest, run = 0, 0
    for cell in hall[row]:
        run = 0 if cell == "#" else run + 1
        longest = max(longest, run)
    return longest


def turned(hall):
    """The hall, whose rows are of one length, turned clockwise."""
    return ["".join(row[column] for row in reversed(hall)) for column in range(len(hall[0]))] if hall else []


def capacity(hall, deep=2):
    """How many boxes the shelves hold that can be reached: one beside a free place holds so many, others none."""
    count = 0
    for row, cells in enumerate(hall):
        for column, cell in enumerate(cells):
            if cell == "#" and neighbours(hall, [row, column]):
                count += deep
    return count
