"""Tables as plain text."""


def pad(text, width, right=False):
    """A text filled up with spaces, or cut with ".." at its end where it is too long. width: at least 2."""
    if len(text) > width:
        return text[: width - 2] + ".."
    return text.rjust(width) if right else text.ljust(width)


def table(rows, numbers=()):
    """Rows of texts under each other, columns two spaces apart; numbers: columns that are aligned to the right."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [pad(cell, max(widths[column], 2), column in numbers) for column, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def wrap(text, width):
    """Lines of at most some characters, broken between words; a longer word has a line of its own."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = line + " " + word if line else word
    if line:
        lines.append(line)
    return lines


def bar(value, most, width=10):
    """A bar of # for a value from 0 to most, the rest filled up with dots."""
    if most <= 0:
        return "." * width
    full = min(max(value * width // most, 0), width)
    return "#" * full + "." * (width - full)


def numbered(items, start=1):
    """Items with their numbers, which are aligned to the right."""
    width = len(str(start + len(items) - 1))
    return [f"{number:>{width}}. {item}" for number, item in enumerate(items, start)]
