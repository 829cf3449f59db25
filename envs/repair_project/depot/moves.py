"""Movements: [article, pieces, cents for each piece], in the order of time; pieces below 0 go out."""


def on_hand(moves, article):
    """How many pieces of an article there are after all movements."""
    return sum(pieces for name, pieces, _ in moves if name == article)


def first_shortage(moves):
    """The index of the first movement that takes out more than there is; None where none does."""
    held = {}
    for index, (name, pieces, _) in enumerate(moves):
        held[name] = held.get(name, 0) + pieces
        if held[name] < 0:
            return index
    return None


def cost(moves, article):
    """Cents that the pieces that went out had cost; what came first goes first. Raises ValueError for a shortage."""
    lots, spent = [], 0
    for name, pieces, cents in moves:
        if name == article and pieces > 0:
            lots.append([pieces, cents])
        while name == article and pieces < 0:
            if not lots:
                raise ValueError("more goes out than there is")
            taken = min(-pieces, lots[0][0])
            spent += taken * lots[0][1]
            pieces += taken
            lots[0][0] -= taken
            if lots[0][0] == 0:
                lots.pop(0)
    return spent


def value(moves, article):
    """Cents that the pieces which are left had cost; what came first goes first. Raises ValueError for a shortage."""
    bought = sum(pieces * cents for name, pieces, cents in moves if name == article and pieces > 0)
    return bought - cost(moves, article)


def average(moves, article):
    """What a piece that is left had cost on average in cents, rounded half up; 0 where none is left."""
    pieces = on_hand(moves, article)
    if pieces <= 0:
        return 0
    return (2 * value(moves, article) + pieces) // (2 * pieces)


def orders(levels, least, lot):
    """By article in the order of their names, how many lots to buy so that there are at least so many pieces."""
    found = {}
    for name, pieces in sorted(levels.items()):
        if pieces < least:
            found[name] = (least - pieces + lot - 1) // lot
    return found


def classes(values):
    """The class of each article, the most valuable first: "A" until 80 % of the sum are reached, "B" until 95 %, then
    "C"."""
    total, running, found = sum(values.values()), 0, {}
    for name, cents in sorted(values.items(), key=lambda item: (-item[1], item[0])):
        found[name] = "A" if running * 100 < total * 80 else "B" if running * 100 < total * 95 else "C"
        running += cents
    return found
