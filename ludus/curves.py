"""Curves as SVG text: the same drawing serves the report and a picture in a README.

Coordinates are those of the drawing (its viewBox). Colours are CSS classes (line-0 ... line-5, grid, label), so that
the page that holds a drawing decides how it looks; `standalone_svg` brings colours of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from statistics import fmean

MARKED_POINTS = 30
LINE_POINTS = 60
DRAWN_POINTS = 400
HOVERED_POINTS = 1000
COLOURS = 6


@dataclass(frozen=True)
class Series:
    """One line: y[i], with the interval low[i]..high[i] where there is one, at x[i]. None leaves a gap."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Lines over one axis. levels: horizontal lines by name. y_range: None takes what the values need."""

    title: str
    series: tuple[Series, ...]
    x_label: str = "step"
    levels: dict[str, float] = field(default_factory=dict)
    y_range: tuple[float, float] | None = None
    percent: bool = False
    note: str = ""

    @property
    def smoothed(self) -> bool:
        """Whether lines are drawn as a moving mean over faint raw values: many points, no intervals."""
        return not any(s.low for s in self.series) and max(len(s.x) for s in self.series) > LINE_POINTS


@dataclass(frozen=True)
class Frame:
    """Where the plot lies in the drawing and which values its edges stand for."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 52
    right: float = 14
    top: float = 12
    bottom: float = 38

    def x(self, value: float) -> float:
        """The drawing's x of a value."""
        low, high = self.x_range
        return round(self.left + (value - low) / (high - low) * (self.width - self.left - self.right), 2)

    def y(self, value: float) -> float:
        """The drawing's y of a value."""
        low, high = self.y_range
        return round(
            self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom), 2
        )


def draw(chart: Chart, width: float, height: float, key: str) -> str:
    """An <svg> of the chart. key: unique in the page.

    The values that a reader may ask for are in data-chart, as JSON with the drawing's coordinates.
    """
    frame = frame_of(chart, width, height)
    inside = f'x="{frame.left - 4}" y="{frame.top - 4}" width="{width - frame.left - frame.right + 8}"'
    parts = [
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(chart.title, True)}"'
        f' data-chart="{escape(json.dumps(_hover(chart, frame)), True)}" xmlns="http://www.w3.org/2000/svg">',
        f'<clipPath id="clip-{key}"><rect {inside} height="{height - frame.top - frame.bottom + 8}"/></clipPath>',
        *_axes(chart, frame),
        f'<g clip-path="url(#clip-{key})">',
    ]
    for name, value in chart.levels.items():
        y = frame.y(value)
        text = f"{name} {shown(value, chart.percent)}"
        parts.append(f'<line class="level" x1="{frame.left}" x2="{width - frame.right}" y1="{y}" y2="{y}"/>')
        beside = y - 5 if y - 20 > frame.top else y + 14
        parts.append(f'<text class="level-label" x="{frame.left + 8}" y="{beside}">{escape(text)}</text>')
    for index, series in enumerate(chart.series):
        parts += _line(chart, series, frame, index % COLOURS)
    parts.append('</g><g class="cursor"></g></svg>')
    return "".join(parts)


def standalone_svg(chart: Chart, width: float = 860, height: float = 380) -> str:
    """A file of its own: title, legend, dark text on white."""
    head = 58
    inner = draw(chart, width, height - head, "alone")
    names = [series.name for series in chart.series]
    legend, x = [], 52.0
    for index, name in enumerate(names if len(names) > 1 else []):
        legend.append(f'<rect class="swatch-{index % COLOURS}" x="{x}" y="37" width="14" height="4" rx="2"/>')
        legend.append(f'<text class="label" x="{x + 20}" y="43">{escape(name)}</text>')
        x += 34 + 7 * len(name)
    note = "" if legend else f'<text class="label" x="52" y="43">{escape(chart.note)}</text>'
    inner = inner.replace("<svg ", f'<svg x="0" y="{head}" width="{width:g}" height="{height - head:g}" ', 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' height="{height:g}"><style>{STANDALONE_STYLE}</style><rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text class="title" x="52" y="24">{escape(chart.title)}</text>{"".join(legend)}{note}{inner}</svg>\n'
    )


PALETTE = ("#2b66c9", "#c8691c", "#178272", "#8250c4", "#c03b55", "#66707c")
STANDALONE_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#4b5563}"
    ".title{font-size:16px;font-weight:600;fill:#111827}.grid{stroke:#e5e7eb}.axis{stroke:#9ca3af}"
    ".level{stroke:#6b7280;stroke-dasharray:5 4}.level-label{paint-order:stroke;stroke:#fff;stroke-width:3px}"
    ".line{fill:none;stroke-width:2.2;stroke-linejoin:round}"
    ".raw{fill:none;stroke-width:1;opacity:.3}.band{opacity:.16;stroke:none}"
    + "".join(f".line-{i}{{stroke:{c}}}.band-{i},.dot-{i},.swatch-{i}{{fill:{c}}}" for i, c in enumerate(PALETTE))
)


def frame_of(chart: Chart, width: float, height: float) -> Frame:
    """The frame that holds all values of a chart; a few outliers of a long noisy line may be cut."""
    xs = [x for series in chart.series for x in series.x]
    x_low, x_high = min(xs), max(xs)
    x_low = 0.0 if x_low == 1 else x_low  # steps count from 1
    if chart.y_range:
        low, high = chart.y_range
    else:
        found: list[float] = list(chart.levels.values())
        for series in chart.series:
            values = sorted(v for v in (*series.y, *series.low, *series.high) if v is not None)
            cut = len(values) // 100 if chart.smoothed else 0
            found += values[cut : len(values) - cut]
        low, high = (min(found), max(found)) if found else (0.0, 1.0)
        if 0 <= low < 0.4 * high:
            low = 0.0
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
        low, high = low - (0 if low == 0 else margin), high + margin
    return Frame(width, height, (x_low, x_high if x_high > x_low else x_low + 1), (low, high))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between low and high, about so many."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
    # Where the numbers are so large that floats between them are few, a multiple may fall outside by one of those.
    return [min(max(round(i * size, 12), low), high) for i in range(first, last + 1)]


def shown(value: float | None, percent: bool) -> str:
    """A value as it stands beside a curve."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}%" if percent else f"{value:.4g}"


def moving_mean(values: Sequence[float | None], reach: int) -> list[float | None]:
    """The mean of each value with `reach` neighbours on either side; None where the value is missing."""
    smooth: list[float | None] = []
    for i, value in enumerate(values):
        near = [v for v in values[max(0, i - reach) : i + reach + 1] if v is not None]
        smooth.append(None if value is None else fmean(near))
    return smooth


def _axes(chart: Chart, frame: Frame) -> list[str]:
    parts = []
    for value in ticks(*frame.y_range, 4):
        y = frame.y(value)
        text = f"{100 * value:g}%" if chart.percent else f"{value:g}"
        parts.append(f'<line class="grid" x1="{frame.left}" x2="{frame.width - frame.right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="label" x="{frame.left - 8}" y="{y + 4}" text-anchor="end">{text}</text>')
    base = frame.height - frame.bottom
    parts.append(f'<line class="axis" x1="{frame.left}" x2="{frame.width - frame.right}" y1="{base}" y2="{base}"/>')
    whole = [value for value in ticks(*frame.x_range, max(2, int(frame.width / 110))) if value == int(value)]
    for value in whole:
        x = frame.x(value)
        anchor = "end" if x > frame.width - frame.right - 12 else "middle"
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{base}" y2="{base + 4}"/>')
        parts.append(f'<text class="label" x="{x}" y="{base + 17}" text-anchor="{anchor}">{value:g}</text>')
    middle = (frame.left + frame.width - frame.right) / 2
    parts.append(
        f'<text class="label" x="{middle}" y="{frame.height - 5}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    return parts


def _line(chart: Chart, series: Series, frame: Frame, colour: int) -> list[str]:
    parts = []
    if series.low:
        upper = [(frame.x(x), frame.y(v)) for x, v in zip(series.x, series.high, strict=True) if v is not None]
        lower = [(frame.x(x), frame.y(v)) for x, v in zip(series.x, series.low, strict=True) if v is not None]
        points = " ".join(f"{x},{y}" for x, y in [*upper, *reversed(lower)])
        parts.append(f'<polygon class="band band-{colour}" points="{points}"/>')
    x, y = _thinned(series)
    if chart.smoothed:
        parts.append(f'<path class="raw line-{colour}" d="{_path(x, y, frame)}"/>')
        y = moving_mean(y, max(1, len(y) // 40))
    parts.append(f'<path class="line line-{colour}" d="{_path(x, y, frame)}"/>')
    if len(x) <= MARKED_POINTS:
        for here, value in zip(x, y, strict=True):
            if value is not None:
                parts.append(f'<circle class="dot dot-{colour}" cx="{frame.x(here)}" cy="{frame.y(value)}" r="3"/>')
    return parts


def _thinned(series: Series) -> tuple[list[float], list[float | None]]:
    """At most DRAWN_POINTS points, each the mean of its neighbours."""
    size = -(-len(series.x) // DRAWN_POINTS)
    x, y = [], []
    for start in range(0, len(series.x), size):
        there = [v for v in series.y[start : start + size] if v is not None]
        x.append(fmean(series.x[start : start + size]))
        y.append(fmean(there) if there else None)
    return x, y


def _path(x: Sequence[float], y: Sequence[float | None], frame: Frame) -> str:
    commands, pen_down = [], False
    for here, value in zip(x, y, strict=True):
        if value is not None:
            commands.append(f"{'L' if pen_down else 'M'}{frame.x(here)} {frame.y(value)}")
        pen_down = value is not None
    return "".join(commands)


def _hover(chart: Chart, frame: Frame) -> dict[str, object]:
    """What a script needs to show the values under the pointer."""
    rows: dict[float, list[list[object]]] = {}
    for index, series in enumerate(chart.series):
        every = -(-len(series.x) // HOVERED_POINTS)
        for i, (x, value) in enumerate(zip(series.x, series.y, strict=True)):
            if value is None or i % every:
                continue
            text = shown(value, chart.percent)
            if series.low:
                text += f" [{shown(series.low[i], chart.percent)}, {shown(series.high[i], chart.percent)}]"
            rows.setdefault(x, []).append([index % COLOURS, series.name, text, frame.y(value)])
    plot = [frame.left, frame.top, frame.width - frame.right, frame.height - frame.bottom]
    return {"x": chart.x_label, "plot": plot, "points": [[x, frame.x(x), values] for x, values in sorted(rows.items())]}
