"""The page at / in a real browser: desktop and phone, light and dark."""

import pytest

from reporting.browser import BINARY, Browser

from .conftest import LABELS

pytestmark = [pytest.mark.skipif(BINARY is None, reason="needs chromium"), pytest.mark.slow]
ASK = """(async () => {
  document.getElementById("text").value = "the goal of the match";
  document.getElementById("go").click();
  for (let i = 0; i < 200 && !document.querySelector("section"); i++) await new Promise(done => setTimeout(done, 50));
  return [...document.querySelectorAll("section")].map(one => [one.querySelector("h2").textContent, one.querySelector(".said").textContent, one.querySelectorAll("progress").length]);
})()"""
CONTRAST = """(() => {
  const light = text => { const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map(x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const page = light(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll("p, h1, h2, .said, .row span")].filter(one => one.textContent).map(one => { const ink = light(getComputedStyle(one).color); return (Math.max(ink, page) + .05) / (Math.min(ink, page) + .05); }));
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_text_is_classified(client, width, dark):
    with Browser(this_machine=True) as browser:
        browser.open(client.url + "/", width=width, dark=dark)
        cards = browser.evaluate(ASK)
        assert [name for name, _, _ in cards] == list(LABELS)
        assert cards[0][1] in LABELS["topics"]
        assert [bars for _, _, bars in cards] == [len(labels) for labels in LABELS.values()]
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert browser.evaluate(CONTRAST) >= 4.5
        assert browser.evaluate('document.getElementById("go").getBoundingClientRect().height') >= 44
        assert browser.complaints == []
        assert all(address.startswith((client.url, "data:")) for address in browser.requests)


def test_a_refusal_is_shown(client):
    with Browser(this_machine=True) as browser:
        browser.open(client.url + "/", width=390)
        said = browser.evaluate(
            """(async () => {
              const box = document.getElementById("text"); box.removeAttribute("maxlength"); box.value = "a".repeat(100001);
              document.getElementById("go").click();
              for (let i = 0; i < 200 && !document.getElementById("trouble").textContent; i++) await new Promise(done => setTimeout(done, 50));
              return document.getElementById("trouble").textContent;
            })()"""
        )
        assert "at most 100,000" in said
