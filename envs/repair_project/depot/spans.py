"""Spans of shelf places: [first, last], both of which belong to them. Places are counted from 1."""


def length(span):
    """How many places a span has."""
    return span[1] - span[0] + 1


def overlap(one, other):
    """How many places two spans share."""
    return max(min(one[1], other[1]) - max(one[0], other[0]) + 1, 0)


def merge(spans):
    """Spans in their order, with those that overlap or touch made one."""
    merged = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return merged


def free(spans, size):
    """The spans of a shelf with some places that none of the given spans covers."""
    gaps, place = [], 1
    for first, last in merge(spans):
        if place < first and place <= size:
            gaps.append([place, min(first - 1, size)])
        place = max(place, last + 1)
    if place <= size:
        gaps.append([place, size])
    return gaps


def fit(spans, size, width):
    """Where the smallest gap begins that is wide enough, the leftmost of several; None where there is none."""
    fitting = [(length(gap), gap[0]) for gap in free(spans, size) if length(gap) >= width]
    return min(fitting)[1] if fitting else None


def parse(text):
    """The spans of a text such as "1-3,7". Raises ValueError for anything else."""
    spans = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        span = [int(first), int(last) if dash else int(first)]
        if span[0] < 1 or span[1] < span[0]:
            raise ValueError("no span: " + part)
        spans.append(span)
    return spans


def show(spans):
    """The text of spans: "1-3,7"."""
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)
