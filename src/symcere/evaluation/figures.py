"""Figures as SVG text: the same numbers give the same bytes, and the ink follows the page, light or dark."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from symcere.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS_COLOUR = "#0072b2"
"""The colour of our system, as on every page."""

TEXT_COLOUR = "#d55e00"
"""The colour of text vectors and of controls drawn beside ours."""

INK = "#010203"
"""The colour of lines and text: drawn as this, written as currentColor."""

_OTHERS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")  # Okabe and Ito's, and two
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_DASHES: tuple[Any, ...] = ("--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
_STYLE: Any = {
    "svg.hashsalt": "symcere",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib: texts are measured alike on every machine
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
} | dict.fromkeys(
    ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK
)


@dataclass(frozen=True)
class Point:
    """A value with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """A labelled line.

    Args:
        name: What the legend says.
        x: Where it is measured, ascending.
        y: The values, as many.
        low: Lower end of a band around them; empty for none.
        high: Upper end.

    Raises:
        ConfigError: If the lengths differ.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the lengths."""
        n = len(self.x)
        if len(self.y) != n or {len(self.low), len(self.high)} not in ({0}, {n}):
            raise ConfigError(
                f"The series {self.name!r} must have as many y as x, and a band of as many or none; found "
                f"{n} x, {len(self.y)} y, {len(self.low)} low, {len(self.high)} high."
            )


def critical_difference_figure(ranks: Mapping[str, float], critical_difference: float, *, ours: str) -> str:
    """Demšar's diagram: systems on the axis of average ranks; a bar joins those that do not differ significantly.

    Args:
        ranks: System -> average rank; 1 is best.
        critical_difference: Nemenyi's, as of `nemenyi`.
        ours: The system to be coloured.

    Returns:
        SVG.
    """
    names = sorted(ranks, key=lambda name: ranks[name])
    bars = cliques([ranks[name] for name in names], critical_difference)
    k, left = len(names), (len(names) + 1) // 2
    top = 0.75 + 0.28 * len(bars)
    depth = top + 0.5 * left + 0.3
    label = "; ".join(f"{name} {ranks[name]:.2f}" for name in names)
    about = f"Average ranks: {label}. Critical difference {critical_difference:.2f}."
    with drawing(7.2, 0.55 + 0.5 * depth, about, layout=None) as (figure, text):
        axes = figure.add_axes((0.27, 0.0, 0.46, 1.0))
        axes.set_xlim(1, max(k, 2))
        axes.set_ylim(depth, -1.4)
        axes.axis("off")
        axes.hlines(0, 1, max(k, 2), color=INK, lw=1.2)
        for tick in range(1, max(k, 2) + 1):
            axes.vlines(tick, -0.12, 0, color=INK, lw=1.2)
            axes.text(tick, -0.22, str(tick), ha="center", va="bottom")
        wide = min(critical_difference, max(k, 2) - 1)
        axes.errorbar(1 + wide / 2, -0.95, xerr=wide / 2, color=INK, capsize=4, lw=1.5)
        more = " (wider than the axis)" if wide < critical_difference else ""
        axes.text(1 + wide / 2, -1.05, f"CD = {critical_difference:.2f}{more}", ha="center", va="bottom")
        for at, (first, last) in enumerate(bars):
            ends = ranks[names[first]] - 0.04, ranks[names[last]] + 0.04
            axes.hlines(0.4 + 0.28 * at, *ends, color="#888888", lw=5, clip_on=False)
        for place, name in enumerate(names):
            on_left = place < left
            y = top + 0.5 * (place if on_left else k - 1 - place)
            edge = 1 - 0.03 * max(k - 1, 1) if on_left else max(k, 2) + 0.03 * max(k - 1, 1)
            colour = OURS_COLOUR if name == ours else INK
            axes.plot([ranks[name], ranks[name], edge], [0, y, y], color=colour, lw=1, clip_on=False)
            gap = 0.02 * max(k - 1, 1)
            axes.text(
                edge - gap if on_left else edge + gap,
                y,
                f"{name}  {ranks[name]:.2f}" if on_left else f"{ranks[name]:.2f}  {name}",
                ha="right" if on_left else "left",
                va="center",
                color=colour,
                weight="bold" if name == ours else "normal",
            )
    return text[0]


def cliques(ranks: Sequence[float], critical_difference: float) -> list[tuple[int, int]]:
    """The longest runs of systems of which no two differ significantly.

    Args:
        ranks: Average ranks, ascending.
        critical_difference: Ranks at least this far apart differ.

    Returns:
        First and last place of each run of two or more; no run lies within another.

    Example:
        >>> cliques([1.0, 1.5, 2.0, 3.9], 1.0)
        [(0, 1), (1, 2)]
    """
    runs: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(
            at for at in range(first, len(ranks)) if at == first or ranks[at] - ranks[first] < critical_difference
        )
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def dot_figure(panels: Mapping[str, Mapping[str, Point]], *, ours: str, label: str) -> str:
    """Systems below each other, a panel a data set, each value a dot with its interval.

    Args:
        panels: Data set -> system -> value with interval; a system that is missing has no dot and says so.
        ours: The system to be coloured.
        label: What is measured.

    Returns:
        SVG.
    """
    names = list(dict.fromkeys(name for points in panels.values() for name in points))
    n_columns = min(len(panels), 3)
    n_rows = -(-len(panels) // n_columns)
    about = f"{label} by system. " + " ".join(
        f"{panel}: " + ", ".join(f"{name} {point.value:.4f}" for name, point in points.items()) + "."
        for panel, points in panels.items()
    )
    with drawing(2.0 + 2.4 * n_columns, n_rows * (0.9 + 0.24 * len(names)), about) as (figure, text):
        grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.axis("off")
        for axes, (panel, points) in zip(grid.flat, panels.items(), strict=False):
            axes.set_title(panel, fontsize=10, loc="left")
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.grid(axis="x", color="#888888", alpha=0.3)
            axes.xaxis.set_major_locator(_locator(4))
            for place, name in enumerate(names):
                if name not in points:
                    axes.text(
                        0.02, place, "skipped", transform=axes.get_yaxis_transform(), va="center", style="italic"
                    )
                    continue
                point, colour = points[name], OURS_COLOUR if name == ours else "#888888"
                axes.hlines(place, point.low, point.high, color=colour, lw=2)
                axes.plot([point.value], [place], marker="o", ms=6, color=colour)
            if ours in points:
                axes.axvline(points[ours].value, color=OURS_COLOUR, lw=0.8, ls=":")
    return text[0]


def line_figure(series: Sequence[Series], *, x_label: str, y_label: str, ours: str = "") -> str:
    """Several lines over one x, each with a band where it has one: robustness, masks, budgets.

    Args:
        series: The lines.
        x_label: Name of x.
        y_label: Name of y.
        ours: The line to be drawn thick and in our colour.

    Returns:
        SVG.
    """
    about = f"{y_label} over {x_label}. " + " ".join(
        f"{line.name}: " + ", ".join(f"{x:g}: {y:.4g}" for x, y in zip(line.x, line.y, strict=True)) + "."
        for line in series
    )
    with drawing(7.2, 3.8, about) as (figure, text):
        axes = figure.add_subplot()
        for line, look in zip(series, looks([line.name for line in series], ours), strict=True):
            axes.plot(line.x, line.y, label=line.name, **look)
            if line.low:
                axes.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.15, lw=0)
        finish(axes, x_label, y_label)
    return text[0]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other beats, where less x and more y is better.

    Args:
        points: (x, y), such as (arp, ndcg).

    Returns:
        For each, whether no other point is at least as good in both and better in one.

    Example:
        >>> pareto_front([(1.0, 1.0), (2.0, 2.0), (2.0, 1.0)])
        [True, True, False]
    """
    xy = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    x, y = xy[:, 0], xy[:, 1]
    as_good = (x[:, None] <= x) & (y[:, None] >= y)
    better = (x[:, None] < x) | (y[:, None] > y)
    beaten = np.asarray((as_good & better).any(axis=0))
    return [not bool(is_beaten) for is_beaten in beaten]


def pareto_figure(
    points: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_label: str, ours: str = ""
) -> str:
    """What each system offers between two aims, less x and more y, and the front that no point beats.

    Args:
        points: System -> its points (x, y), joined in the order given, such as along the popularity dial.
        x_label: Name of x: the less the better.
        y_label: Name of y: the more the better.
        ours: The system to be drawn in our colour.

    Returns:
        SVG; the points of the front, over all systems, are ringed and joined.
    """
    every = [point for of_system in points.values() for point in of_system]
    front = sorted({point for point, on in zip(every, pareto_front(every), strict=True) if on})
    about = f"{y_label} against {x_label}. " + " ".join(
        f"{name}: " + ", ".join(f"({x:.4g}, {y:.4g})" for x, y in of_system) + "."
        for name, of_system in points.items()
    )
    with drawing(7.2, 4.0, about) as (figure, text):
        axes = figure.add_subplot()
        front_x, front_y = [x for x, _ in front], [y for _, y in front]
        ring: dict[str, Any] = {"marker": "o", "ms": 13, "mfc": "none", "mec": INK, "mew": 1.2}
        axes.step(front_x, front_y, where="post", color=INK, lw=0.8, alpha=0.7, label="Pareto front", **ring)
        for (name, of_system), look in zip(points.items(), looks(list(points), ours), strict=True):
            axes.plot([x for x, _ in of_system], [y for _, y in of_system], label=name, **look)
        finish(axes, f"{x_label} (left: less)", y_label)
    return text[0]


def stand_alone(svg: str) -> str:
    """The content of an SVG file, for a figure made to stand in a page: mid-grey ink and no page's colours."""
    return svg.replace("currentColor", "#777777").replace(f"var(--ours, {OURS_COLOUR})", OURS_COLOUR) + "\n"


@contextmanager
def drawing(
    width: float, height: float, about: str, *, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[tuple["Figure", list[str]]]:
    """A figure to draw on, in inches; the list holds its SVG afterwards."""
    import matplotlib
    from matplotlib.figure import Figure

    text: list[str] = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout=layout)
        yield figure, text
        raw = io.StringIO()
        blank = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(raw, format="svg", transparent=True, metadata=blank)
    text.append(_inline(raw.getvalue(), about))


def _inline(svg: str, about: str) -> str:
    """The svg element alone, for a page: ink as currentColor, no id that nothing refers to, a text for readers."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    svg = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1system-ui, sans-serif", svg)
    svg = svg.replace(INK, "currentColor").replace(OURS_COLOUR, f"var(--ours, {OURS_COLOUR})")
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([\w.:-]+)"', lambda match: match[0] if match[1] in used else "", svg)
    head = f'<svg role="img" aria-label="{escape(about)}" style="max-width: 100%; height: auto" '
    return svg.replace("<svg ", head, 1)


def _locator(n: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(n)


def looks(names: Sequence[str], ours: str) -> Iterator[dict[str, Any]]:
    """Colour, marker and dash of each line: never told apart by colour alone."""
    place = 0
    for name in names:
        if name == ours:
            yield {"color": OURS_COLOUR, "marker": "o", "ls": "-", "lw": 2.4, "zorder": 5}
        else:
            colour, marker = _OTHERS[place % len(_OTHERS)], _MARKERS[place % len(_MARKERS)]
            yield {"color": colour, "marker": marker, "ls": _DASHES[place % len(_DASHES)], "lw": 1.4}
            place += 1


def finish(axes: "Axes", x_label: str, y_label: str) -> None:
    """Names, grid and a legend beside the axes."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#888888", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
