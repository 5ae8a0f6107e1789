"""Drawings by matplotlib that follow the page: inline SVG takes its colours from CSS, files have them fixed."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import escape

from rankwise.errors import missing_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Palette:
    """Colours by what they mean; the page's style sheet has a variable of each name."""

    ink: str = "#1d2129"
    muted: str = "#5c6470"
    grid: str = "#e3e5ea"
    paper: str = "#ffffff"
    first: str = "#2b62c9"
    second: str = "#c2571a"
    third: str = "#0f7f72"
    fourth: str = "#7a4fc0"
    good: str = "#1a7f4f"
    bad: str = "#bf3346"


LIGHT = Palette()
# Colours that stand for CSS variables until the SVG is written: no drawing uses these values for themselves.
_STAND_INS = {field.name: f"#0a0b{number:02x}" for number, field in enumerate(fields(Palette), start=1)}
_VARIABLES = Palette(**_STAND_INS)

Drawer = Callable[["Figure", Palette], None]


@dataclass(frozen=True)
class Chart:
    """A drawing with the words that stand for it where it cannot be seen.

    draw
        Fills an empty figure.
    width, height
        In inches.
    """

    name: str
    title: str
    description: str
    draw: Drawer
    width: float = 5.2
    height: float = 3.2

    def figure(self, palette: Palette) -> Figure:
        """Drawn; text of 11 points stays readable when a phone shrinks it."""
        from matplotlib.figure import Figure

        drawn = Figure(figsize=(self.width, self.height), layout="constrained")
        self.draw(drawn, palette)
        return drawn


def plain_axes(axes: Axes, palette: Palette, *, grid: str = "y") -> None:
    """Quiet axes: a light grid, no box, muted words."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.grid)
    axes.tick_params(which="both", colors=palette.muted, length=0, labelsize=10)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=palette.grid, linewidth=0.8)  # type: ignore[arg-type]
    axes.xaxis.label.set_color(palette.muted)
    axes.yaxis.label.set_color(palette.muted)
    axes.xaxis.label.set_fontsize(10)
    axes.yaxis.label.set_fontsize(10)


def legend(axes: Axes, palette: Palette, **options: Any) -> None:
    """A legend without a frame, above the drawing unless placed otherwise."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "ncols": 4, "borderaxespad": 0.2, **options}
    axes.legend(frameon=False, fontsize=10, labelcolor=palette.muted, handlelength=1.4, columnspacing=1.2, **place)


def inline(chart: Chart) -> str:
    """The chart as an SVG element for the page: CSS colours, the page's fonts, a title for screen readers."""
    svg = _svg(chart, _VARIABLES)
    for name, stand_in in _STAND_INS.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # matplotlib's style element would style the whole page, and its group ids repeat from drawing to drawing.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    viewbox = re.search(r'viewBox="([^"]*)"', svg)
    assert viewbox is not None
    opening = (
        f'<svg class="chart" viewBox="{viewbox[1]}" role="img" aria-labelledby="{chart.name}-title {chart.name}-desc">'
        f'<title id="{chart.name}-title">{escape(chart.title)}</title>'
        f'<desc id="{chart.name}-desc">{escape(chart.description)}</desc>'
    )
    return opening + svg[svg.index(">", svg.index("<svg")) + 1 :]


def save(charts: list[Chart], folder: Path) -> list[Path]:
    """Write every chart as SVG and PNG; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in charts:
        for ending in ("svg", "png"):
            path = folder / f"{chart.name}.{ending}"
            with _settings(chart.name):
                chart.figure(LIGHT).savefig(path, dpi=160, facecolor=LIGHT.paper, metadata=_no_date(ending))
            written.append(path)
    return written


def _svg(chart: Chart, palette: Palette) -> str:
    text = io.StringIO()
    with _settings(chart.name):
        chart.figure(palette).savefig(text, format="svg", transparent=True, metadata=_no_date("svg"))
    return text.getvalue()


def _no_date(ending: str) -> dict[str, None]:
    """Equal results give equal files."""
    return {"Date": None} if ending == "svg" else {}


@contextmanager
def _settings(name: str) -> Iterator[None]:
    """Text stays text, and the ids of drawing parts are repeatable and differ from chart to chart."""
    try:
        import matplotlib
    except ImportError as error:
        raise missing_extra("matplotlib", "report") from error
    with (
        matplotlib.rc_context(
            {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 11, "text.parse_math": False}
        ),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a PNG; an SVG is drawn with the reader's fonts
        yield
