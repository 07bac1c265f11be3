"""The two plots of the report, as inline SVG in the page's own colours."""

import io
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evals.storage.files import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
# No two alike: each is looked for in the finished text.
INK, MUTED, LINE, CARD = "#111111", "#222222", "#333333", "#444444"
RUNS = ("#511111", "#522222", "#533333", "#544444")
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", CARD: "--card"} | {
    c: f"--run{n}" for n, c in enumerate(RUNS)
}
"""Colours only stand for the page's own, which follow light and dark."""


class Point(NamedTuple):
    """One cell of one row: percent, its interval, what is said about it."""

    x: float
    low: float | None
    high: float | None
    tip: str


class Series(NamedTuple):
    """One row of the table: its points by cell key. kind: "run", or the model's size."""

    name: str
    kind: str
    points: Mapping[str, Point]


def cells(columns: Mapping[str, str], series: Sequence[Series], width: int) -> str:
    """Each cell's value with its interval on one line a column, published rows behind it. columns:
    key -> label; width: px.
    """
    own = [one for one in series if one.kind == "run"]
    lane = 13
    above = 0 if width > 600 else 20
    pitch = 26 + above + lane * max(0, len(own) - 1)
    height = pitch * len(columns) + 26
    figure, axes = _figure(width, height, left=210 if not above else 12)
    tips: dict[str, str] = {}
    for row, (key, label) in enumerate(columns.items()):
        top = -row * pitch - above
        middle = top - (pitch - above) / 2
        axes.hlines(middle, 0, 100, color=LINE, linewidth=1)
        x, y = (0, top + 5) if above else (-2.5, middle)
        _write(axes, x, y, label, INK, ha="left" if above else "right")
        for one in (one for one in series if key in one.points):
            point, lead = one.points[key], one.kind == "run"
            gid = f"p{width}-{len(tips)}"
            tips[gid] = point.tip
            y = middle + lane * ((len(own) - 1) / 2 - own.index(one)) if lead else middle
            color = RUNS[own.index(one) % len(RUNS)] if lead else MUTED
            if point.low is not None and point.high is not None:
                axes.hlines(y, point.low, point.high, color=color, linewidth=3, alpha=0.45)
            marker = {"70b": "D"}.get(one.kind, "o")
            size = {"run": 8, "70b": 5.2}.get(one.kind, 6)
            face = color if lead else CARD
            axes.plot(
                [point.x],
                [y],
                marker,
                markersize=size,
                color=color,
                markerfacecolor=face,
                markeredgewidth=1.2,
                gid=gid,
                clip_on=False,
            )
    axes.set(xlim=(0, 100), ylim=(-pitch * len(columns), 0), xticks=range(0, 101, 20))
    return _svg(
        figure,
        f"cells{width}",
        tips,
        "Every cell with its 95 % interval beside the published rows; the numbers are in the"
        " table.",
    )


def times(seconds: Mapping[str, Mapping[str, tuple[float, str]]], width: int) -> str:
    """Wall time by phase, a group of bars a run. seconds: run -> phase -> (seconds, its label)."""
    pitch, head = 42, 30 if len(seconds) > 1 else 0
    height = sum(head + pitch * len(phases) for phases in seconds.values())
    figure, axes = _figure(width, max(1, height), left=4)
    longest = max((s for phases in seconds.values() for s, _ in phases.values()), default=0) or 1
    y = 0.0
    for number, (name, phases) in enumerate(seconds.items()):
        if head:
            _write(axes, 0, y - 14, name, INK, weight="bold")
        y -= head
        for phase, (wall_s, label) in sorted(phases.items(), key=lambda one: (-one[1][0], one[0])):
            _write(axes, 0, y - 9, phase, INK)
            _write(axes, longest, y - 9, label, MUTED, ha="right")
            axes.barh(y - 24, longest, 8, color=LINE)
            axes.barh(y - 24, wall_s, 8, color=RUNS[number % len(RUNS)])
            y -= pitch
    axes.set(xlim=(0, longest), ylim=(min(y, -1), 0), xticks=[])
    return _svg(figure, f"times{width}", {}, "Wall time by phase.")


def _write(axes: "Axes", x: float, y: float, words: str, color: str, **how: Any) -> None:
    """Words that may be anybody's: dollars make no formula, and XML has a place for each letter."""
    axes.text(x, y, one_line(words), color=color, va="center", parse_math=False, **how)


def _figure(width: int, height: int, left: int) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    # Not through pyplot, which picks a backend and keeps every figure. 72 dots an inch: a unit of
    # the figure is one of the page.
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    foot = min(24, height / 2)
    axes = figure.add_axes(
        (left / width, foot / height, (width - left - 14) / width, 1 - foot / height)
    )
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=MUTED, labelsize=11)
    axes.set_yticks([])
    return figure, axes


def _svg(figure: "Figure", salt: str, tips: Mapping[str, str], label: str) -> str:
    """The figure as an <svg> element; equal figures give equal text."""
    from matplotlib import rc_context

    file = io.BytesIO()
    # Texts stay texts, in the page's font. Ids come of the salt and not by chance, of another salt
    # for each plot, since all plots share a page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 12.5}):
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            # No date and no version of matplotlib: equal figures give equal bytes.
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    # HTML knows no prefixes: without this every element would be an ns0:path.
    ET.register_namespace("", _SVG)
    root = ET.fromstring(file.getvalue())
    for lost in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(lost)
    for use in root.iter(f"{{{_SVG}}}use"):
        # inside HTML a prefixed name of the parser's choice would be no link
        use.set("href", use.attrib.pop(_XLINK_HREF))
    for group in root.iter(f"{{{_SVG}}}g"):
        if (tip := tips.get(group.get("id", ""))) is not None:
            group.set("data-tip", tip)
        # matplotlib's ids (figure_1, axes_1) would come once for each plot of the page.
        group.attrib.pop("id", None)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    text = ET.tostring(root, encoding="unicode")
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return text
