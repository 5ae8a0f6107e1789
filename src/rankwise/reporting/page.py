"""Facts to one HTML file that needs nothing beside itself: no script, font or image from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise import __version__, files
from rankwise.records.search import RECORD
from rankwise.reporting import drawing
from rankwise.reporting.drawing import Chart
from rankwise.reporting.marked import Numbers
from rankwise.runs.folder import Run, open_run

TEMPLATES = Path(__file__).parent / "templates"
DEFAULT_NAME = "report.html"


def report(
    path: str | Path | Run, out: str | Path | None = None, *, figures: str | Path | None = None, texts: bool = True
) -> Path:
    """Write the report of a run or of a search and return the file's path.

    out
        The HTML file; report.html in the folder by default.
    figures
        A folder for every chart as SVG and PNG.
    texts
        Show the texts of the most confident mistakes, read again from their source.

    Raises: UserError when the folder is neither a run's nor a search's, or cannot be written to.
    """
    folder = Path(path)
    html, charts = _search_page(folder) if (folder / RECORD).is_file() else _run_page(open_run(folder), texts)
    target = Path(out) if out is not None else folder / DEFAULT_NAME
    files.write_text(target, html)
    if figures is not None:
        files.make_writable_folder(Path(figures))
        drawing.save(list(charts.values()), Path(figures))
    return target


def _run_page(run: Run, texts: bool) -> tuple[str, dict[str, Chart]]:
    from rankwise.reporting.charts import run_charts
    from rankwise.reporting.run import facts_of

    facts = facts_of(run, texts=texts)
    charts = run_charts(facts)
    return render("run.html", facts, charts), charts


def _search_page(folder: Path) -> tuple[str, dict[str, Chart]]:
    from rankwise.reporting.search import facts_of
    from rankwise.reporting.search_charts import search_charts

    facts = facts_of(folder)
    charts = search_charts(facts)
    return render("search.html", facts, charts), charts


def render(template: str, facts: Mapping[str, Any], charts: Mapping[str, Chart]) -> str:
    """The page of a template; every number of it goes through `Numbers`."""
    import jinja2  # a dependency of torch
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        **facts,
        number=Numbers(facts),
        chart={name: Markup(drawing.inline(chart)) for name, chart in charts.items()},
        titles={name: chart.title for name, chart in charts.items()},
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode(),
        version=__version__,
    )
