"""Plots as SVG: lines with their points, in light and in dark."""

from html import escape
from math import ceil, floor, log10

from bench.result import Plot, shown

_WIDTH, _HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 44, 74
# Okabe and Ito's colours, which those tell apart too who see fewer.
_COLOURS = ("#e69f00", "#d55e00", "#0072b2", "#009e73")
_STYLE = """\
text { font: 13px sans-serif; fill: #222 } .title { font-weight: bold }
.grid { stroke: #8884; fill: none } .line { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } }"""
_STEEP = 20  # beyond this ratio an axis is logarithmic


class _Axis:
    """From values to places: logarithmic where the values span much, else from zero."""

    def __init__(self, values: list[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        self.is_log = low > 0 and high / low >= _STEEP
        self._low = log10(low) if self.is_log else 0.0
        self._high = log10(high) if self.is_log else high * 1.05
        self._start, self._span = start, end - start

    def place(self, value: float) -> float:
        """Return where a value lies."""
        value = log10(value) if self.is_log else value
        return self._start + self._span * (value - self._low) / ((self._high - self._low) or 1)

    def ticks(self) -> list[float]:
        """Return round values to draw lines at."""
        if self.is_log:
            powers = range(floor(self._low), ceil(self._high) + 1)
            every = [step * 10.0**power for power in powers for step in (1, 2, 5)]
            return [v for v in every if self._low - 0.01 <= log10(v) <= self._high + 0.01]
        step = 10.0 ** floor(log10(self._high or 1))
        while self._high / step < 4:
            step /= 2
        return [step * number for number in range(int(self._high / step) + 1)]


def svg(plot: Plot) -> str:
    """Return the plot as an SVG document."""
    points = [point for series in plot.series for point in series.points]
    x = _Axis([at for at, _ in points], _LEFT, _WIDTH - _RIGHT)
    y = _Axis([value for _, value in points], _HEIGHT - _BOTTOM, _TOP)
    body = [
        _text(_LEFT, 22, plot.title, "title"),
        *(line for value in y.ticks() for line in _across(y.place(value), shown(value))),
        *(
            _text(x.place(at), _HEIGHT - _BOTTOM + 20, shown(at), anchor="middle")
            for at in sorted({at for at, _ in points} if x.is_log else x.ticks())
        ),
        _text(_WIDTH - _RIGHT, _HEIGHT - _BOTTOM + 36, plot.x, anchor="end"),
        _text(_LEFT - 8, _TOP - 6, plot.y),
    ]
    for number, (series, colour) in enumerate(zip(plot.series, _COLOURS, strict=False)):
        places = [(x.place(at), y.place(value)) for at, value in series.points]
        body += _line(places, colour)
        at = _LEFT + number * (_WIDTH - _LEFT - _RIGHT) / len(plot.series)
        body += (
            f'<rect x="{at:.0f}" y="{_HEIGHT - 24}" width="14" height="4" fill="{colour}"/>',
            _text(at + 20, _HEIGHT - 17, series.name),
        )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
    return "\n".join((head, f"<title>{escape(plot.title)}</title>", f"<style>{_STYLE}</style>",
                      *body, "</svg>", ""))  # fmt: skip


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {place}{named}>{escape(text)}</text>"


def _across(y: float, label: str) -> tuple[str, str]:
    line = f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line, _text(_LEFT - 8, y + 4, label, anchor="end")


def _line(places: list[tuple[float, float]], colour: str) -> list[str]:
    path = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    return [f'<path class="line" stroke="{colour}" d="{path}"/>', *dots]
