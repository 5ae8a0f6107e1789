"""Pages opened from disk in a real Chromium that cannot reach any network."""

import json
from pathlib import Path

import pytest

from rankwise.reporting import report
from reporting.browser import BINARY, Browser
from reporting.made import search_folder

pytestmark = pytest.mark.skipif(BINARY is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(finished, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("opened")
    return {
        "run": report(finished, folder / "run.html"),
        "search": report(search_folder(folder / "search", 40, with_runs=6)),
        "nothing": report(search_folder(folder / "nothing", 0)),
    }


@pytest.mark.parametrize("name", ["run", "search", "nothing"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_opens_without_a_request_or_a_complaint(browser, pages, name, width, dark):
    browser.open(pages[name], width=width, dark=dark)
    assert browser.requests == [pages[name].resolve().as_uri()]
    assert browser.complaints == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_a_request_and_an_error_would_be_seen(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<!doctype html><img src='http://example.invalid/x.png'><script>missing()</script>")
    browser.open(page)
    assert len(browser.requests) == 2
    assert "missing is not defined" in json.dumps(browser.complaints)


def test_contrast_of_every_text(browser, pages):
    """WCAG's 4.5 between a text and what lies behind it, in both themes."""
    script = """
    (() => {
      const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
      const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
      const behind = (element) => { for (let e = element; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
      const bad = [];
      for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || element.closest('script, style, .skip') || element.matches('svg title, svg desc')) continue;
        const style = getComputedStyle(element);
        const colour = rgba(element.closest('svg') ? style.fill : style.color);
        const [a, b] = [light(colour), light(behind(element))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(`${element.tagName} ${element.textContent.trim().slice(0, 30)} ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
      }
      return bad;
    })()
    """
    for name in ("run", "search"):
        for dark in (False, True):
            browser.open(pages[name], dark=dark)
            assert browser.evaluate(script) == [], (name, dark)


def test_tables_and_drawings_have_names(browser, pages):
    for name in ("run", "search"):
        browser.open(pages[name])
        assert (
            browser.evaluate(
                "[...document.querySelectorAll('table')].filter(t => !t.caption?.textContent.trim()).length"
            )
            == 0
        )
        assert (
            browser.evaluate("document.querySelectorAll('thead th:not([scope=col]), tbody th:not([scope=row])').length")
            == 0
        )
        assert browser.evaluate("document.querySelectorAll('svg:not([role=img])').length") == 0
        ids = browser.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))


def test_sections_are_reached_by_keyboard(browser, pages):
    browser.open(pages["run"])
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.className") == "skip"
    browser.press("Tab")
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.textContent") == "Learning"
    browser.press("Enter")
    assert browser.evaluate("location.hash") == "#learning"
    assert 0 <= browser.evaluate("document.getElementById('learning').getBoundingClientRect().top") < 120


def test_a_column_sorts(browser, pages):
    browser.open(pages["search"])
    column = (
        "[...document.querySelector('table.trials').tBodies[0].rows].map(r => r.cells[0].querySelector('data').value)"
    )
    before = browser.evaluate(column)
    browser.evaluate("document.querySelector('table.trials th button').focus()")
    browser.press("Enter")
    falling = [int(number) for number in browser.evaluate(column)]
    assert falling == sorted(map(int, before), reverse=True)
    assert browser.evaluate("document.querySelector('table.trials th').getAttribute('aria-sort')") == "descending"
