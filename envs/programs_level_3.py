"""Programs of level 3: an algorithm."""

from __future__ import annotations

import heapq
from string import ascii_lowercase

from .program_template import Draft, Draw, flat, listed, near, piled, template


def solve_merged_ranges(text: str, *, gap: int) -> str:
    """The ranges, joined where they overlap or nearly do."""
    ranges = sorted([int(word) for word in line.split()] for line in text.strip().split("\n"))
    merged: list[list[int]] = []
    for low, high in ranges:
        if merged and low - merged[-1][1] <= gap:
            merged[-1][1] = max(merged[-1][1], high)
        else:
            merged.append([low, high])
    return "\n".join(f"{low} {high}" for low, high in merged)


@template(3, solve_merged_ranges)
def merged_ranges(d: Draw) -> Draft:
    """Intervals merged."""
    gap = d.number(1, 30)
    statement = (
        "Each line of the input has two integers, the low and the high end of a range, with low <= high; there is at "
        "least one line. Two ranges are joined where they share a number, or where the low end of one lies above the "
        f"high end of the other by at most {gap}; the range they make goes from the lowest to the highest of their "
        "ends. Join ranges until nothing can be joined any more. Print those that are left, one a line as low and high "
        "end with a space between them, the lowest first."
    )

    def chain() -> str:
        low, ranges = d.number(-60, 60), []
        for _ in range(d.number(3, 7)):
            high = low + d.number(0, 25)
            ranges.append((low, high))
            if d.number(0, 2) == 0:
                ranges.append((d.number(low, high), d.number(high, high + 1)))
            low = high + d.pick((gap, gap + 1, gap + 1, gap - 1, 2 * gap + 3, -2))
        return "".join(flat(ranges[i]) for i in d.rng.permutation(len(ranges)).tolist())

    inputs = [
        flat([4, 4]),
        flat([0, 100]) + flat([5, 6]) + flat([100 + gap, 200]),
        flat([1, 2]) * 3,
    ]
    inputs += [
        flat([8 + gap, 9 + gap]) + flat([-3, 7]),
        flat([7 + gap, 9 + gap]) + flat([-3, 7]),
    ]
    inputs += [chain() for _ in range(5)]
    low = d.number(-9, 9)
    example = flat([low + 2 * gap + 9, low + 3 * gap + 9]) + flat([low + gap, low + gap + 4]) + flat([low - 5, low])
    return Draft(statement, {"gap": gap}, near("gap", gap), example, inputs)


def solve_muddy_path(text: str, *, wall: str, cost: int) -> str:
    """The cost of the cheapest path from S to G."""
    grid = text.split()
    start = next((r, c) for r, row in enumerate(grid) for c, cell in enumerate(row) if cell == "S")
    queue = [(0, start)]
    done = set()
    while queue:
        spent, (r, c) = heapq.heappop(queue)
        if grid[r][c] == "G":
            return str(spent)
        if (r, c) in done:
            continue
        done.add((r, c))
        for i, j in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if 0 <= i < len(grid) and 0 <= j < len(grid[0]) and grid[i][j] != wall:
                heapq.heappush(queue, (spent + (cost if grid[i][j] == "~" else 1), (i, j)))
    return "none"


@template(3, solve_muddy_path, "heapq")
def muddy_path(d: Draw) -> Draft:
    """The shortest path on a grid."""
    wall, cost = d.pick("#X@%&"), d.number(2, 9)
    statement = (
        "The input is a grid, one row a line, all of the same length. "
        f"S is the start, G the goal, {wall} a wall, . a free cell and ~ mud. A step goes up, down, left or right to a "
        f"cell of the grid that is no wall. It costs {cost} where that cell is mud, else 1. Print what the cheapest "
        "way from S to G costs, or none where there is no way."
    )

    def grid(rows: int, columns: int, cells: str) -> str:
        drawn = [d.pick(cells) for _ in range(rows * columns)]
        start, goal = d.rng.permutation(rows * columns)[:2].tolist()
        drawn[start], drawn[goal] = "S", "G"
        return piled(["".join(drawn[i : i + columns]) for i in range(0, rows * columns, columns)])

    inputs = ["SG\n", f"S{wall}G\n", "G\n~\nS\n", f"S~~~G\n.{wall}.{wall}.\n.....\n", f"S~G\n.{wall}.\n...\n"]
    inputs += [grid(d.number(3, 7), d.number(3, 7), f"...~~~{wall}{wall}") for _ in range(3)]
    inputs += [grid(d.number(3, 6), d.number(3, 6), f"~~~~.{wall}"), grid(6, 6, f"..~{wall}{wall}")]
    example = grid(3, 4, f"...~~{wall}")
    return Draft(statement, {"wall": wall, "cost": cost}, near("cost", cost), example, inputs)


def solve_common_letters(text: str, *, letters: str, points: int) -> str:
    """What the best common subsequence is worth."""
    first, second = text.split()
    best = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, mine in enumerate(first):
        for j, other in enumerate(second):
            best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j])
            if mine == other:
                worth = points if mine in letters else 1
                best[i + 1][j + 1] = max(best[i + 1][j + 1], best[i][j] + worth)
    return str(best[-1][-1])


@template(3, solve_common_letters)
def common_letters(d: Draw) -> Draft:
    """The longest common subsequence, with weights."""
    used = "".join(d.sample(ascii_lowercase, 6))
    letters, points = "".join(d.sample(used, d.number(2, 3))), d.number(2, 9)
    statement = (
        "The input is two lines of small letters, each with at least one. A common subsequence is a row of letters "
        "that is left of the first line and also of the second when some letters of each (or none) are struck out, "
        "without a change of their order. Each of its letters is worth 1 point, but "
        f"{listed(letters)} are worth {points} points each. "
        "Print the most points that a common subsequence has (0 where the lines share no letter)."
    )

    def pair() -> str:
        first = d.word(used, 5, 14)
        kept = "".join(letter for letter in first if d.number(0, 2))
        second = d.word(used, 5, 14) if d.number(0, 1) else d.word(used, 1, 4) + kept + d.word(used, 1, 4)
        return f"{first}\n{second}\n"

    a, z = letters[0], letters[-1]
    plain = next(letter for letter in used if letter not in letters)
    inputs = [
        f"{a}\n{z}\n",
        f"{a}{z}\n{z}{a}\n",
        f"{used}\n{used}\n",
        f"{plain * 5}{z}\n{z}{plain * 5}\n",
        f"{a}\n{a}\n",
    ]
    inputs += [pair() for _ in range(5)]
    slips = (*near("points", points), {"letters": letters[:-1]})
    return Draft(statement, {"letters": letters, "points": points}, slips, pair(), inputs)


def solve_counting_out(text: str, *, step: int, left: int) -> str:
    """Who is left of each circle."""
    lines = []
    for people in map(int, text.split()):
        circle = list(range(1, people + 1))
        place = 0
        while len(circle) > left:
            place = (place + step - 1) % len(circle)
            circle.pop(place)
        lines.append(" ".join(map(str, circle)))
    return "\n".join(lines)


@template(3, solve_counting_out)
def counting_out(d: Draw) -> Draft:
    """The Josephus problem."""
    step, left = d.number(2, 20), d.number(1, 4)
    remain = "1 person is" if left == 1 else f"{left} people are"
    statement = (
        "Each line of the input is an integer n, at least 1. For each, n people stand in a circle, with the numbers 1 "
        "to n. From person 1 on they are counted one after the other, round and round; each time the count comes to "
        f"{step}, that person leaves the circle, and the count begins again at 1 with the next one. It "
        f"ends as soon as no more than {remain} left. Print the numbers of those on a line of its own, in ascending "
        "order and with a space between them."
    )
    inputs = ["1\n", f"{left}\n", f"{left + 1}\n", f"{step}\n", f"{step + 1}\n", "41\n"]
    inputs += [piled(d.numbers(d.number(2, 5), 5, 90)) for _ in range(4)]
    slips = (*near("step", step), {"left": left + 1})
    return Draft(statement, {"step": step, "left": left}, slips, piled(d.numbers(2, 5, 15)), inputs)


def solve_fewest_coins(text: str, *, coins: list[int]) -> str:
    """The fewest coins for each amount."""
    amounts = [int(word) for word in text.split()]
    never = max(amounts) + 1
    fewest = [0] + [never] * max(amounts)
    for amount in range(1, len(fewest)):
        for coin in coins:
            if coin <= amount:
                fewest[amount] = min(fewest[amount], fewest[amount - coin] + 1)
    return "\n".join("none" if fewest[amount] == never else str(fewest[amount]) for amount in amounts)


@template(3, solve_fewest_coins)
def fewest_coins(d: Draw) -> Draft:
    """Change with few coins."""
    coins = d.sample(range(2, 26), d.number(3, 4))
    statement = (
        f"There are coins of {listed(coins)} cents, as many of each as one likes. Each line of the input is an amount "
        "in cents, from 0 to 300. For each print, on a line of its own, the smallest number of coins that make up "
        "exactly this amount, or none where no coins do."
    )
    low, high = coins[0], coins[-1]
    inputs = [
        "0\n",
        f"{low - 1}\n",
        piled(coins),
        piled([low + high, 2 * high, 3 * low]),
        f"{d.number(250, 300)}\n",
    ]
    inputs += [piled(d.numbers(d.number(3, 6), 1, 120)) for _ in range(4)]
    example = piled([high + low, 1, d.number(30, 60)])
    return Draft(statement, {"coins": coins}, ({"coins": coins[:-1]}, {"coins": coins[1:]}), example, inputs)


def solve_island_count(text: str, *, land: str, least: int, corners: bool) -> str:
    """How many regions of land are large enough."""
    grid = text.split()
    left = {(r, c) for r, row in enumerate(grid) for c, cell in enumerate(row) if cell == land}
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    if corners:
        steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    count = 0
    while left:
        waiting, size = [left.pop()], 0
        while waiting:
            r, c = waiting.pop()
            size += 1
            for down, right in steps:
                if (r + down, c + right) in left:
                    left.remove((r + down, c + right))
                    waiting.append((r + down, c + right))
        count += size >= least
    return str(count)


@template(3, solve_island_count)
def island_count(d: Draw) -> Draft:
    """Connected regions of a grid."""
    land, least, corners = d.pick("#XO@%&"), d.number(2, 6), bool(d.number(0, 1))
    touch = "at a side or a corner" if corners else "at a side; to touch at a corner is not enough"
    statement = (
        f"The input is a grid, one row a line, all of the same length, in which {land} is land and . is water. Cells "
        f"of land belong to one island where one can go from one to the other over cells of land that touch {touch}. "
        f"Print how many islands have {least} or more cells."
    )

    def grid(rows: int, columns: int) -> str:
        cells = f"{land}{land}..." if corners else f"{land}."
        return piled([d.word(cells, columns, columns) for _ in range(rows)])

    stair = piled([f"{'.' * i}{land}{'.' * (least - i)}" for i in range(least)])
    inputs = [
        "...\n...\n",
        f"{land * least}\n",
        f"{land * (least - 1)}.{land}\n",
        stair,
        piled([land] * (least + 1)),
    ]
    inputs += [piled([f"{land * least}.{land * least}.{land * (least - 1)}"])]
    inputs += [grid(d.number(4, 7), d.number(5, 10)) for _ in range(4)]
    slips = (*near("least", least), {"corners": not corners})
    return Draft(statement, {"land": land, "least": least, "corners": corners}, slips, grid(4, 6), inputs)
