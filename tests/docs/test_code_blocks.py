"""Every block of code in the documentation runs, in order, page by page, offline.

The pages' encoder and data set are replaced by tiny ones; what a page shows as output must be printed, except by
commands that train on the replaced ones. Blocks that need minutes, a network or a cluster say so, and are few.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import TOPICS, sentences, write_csv
from rankwise import config as configuration
from rankwise.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
MARK = re.compile(r"<!-- not run: (.+) -->")
# Reasons a block may give for not being run.
REASONS = {"takes minutes", "needs several processes or GPUs", "needs a Ray cluster"}
MOST_UNRUN = 6


@dataclass
class Block:
    """A fenced block: its language, text, line number, and the reason it is not run."""

    language: str
    text: str
    line: int
    unrun: str | None


def blocks_of(page: Path) -> list[Block]:
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    start = None
    for number, line in enumerate(lines):
        if line.startswith("```"):
            if start is None:
                start = number
                continue
            before = MARK.fullmatch(lines[start - 1]) if start else None
            text = "\n".join(lines[start + 1 : number])
            found.append(Block(lines[start].strip("`").strip(), text, start + 1, before[1] if before else None))
            start = None
    assert start is None, f"{page}: a block is left open at line {start}"
    return found


@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_model):
    """A folder with the files that the pages talk about."""
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "reviews.csv", sentences(90, 1))
    chance = random.Random(2)
    rows = [(text, "|".join(chance.sample(sorted(TOPICS), chance.randint(1, 2)))) for text, _ in sentences(60, 2)]
    write_csv(tmp_path / "topics.csv", rows)
    (tmp_path / "new.csv").write_text("text\n" + "\n".join(text for text, _ in sentences(5, 3)) + "\n")
    return {"packaged:all-MiniLM-L6-v2": str(tiny_model), "packaged:bbc-news": str(tmp_path / "reviews.csv")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("measured_soon")
def test_blocks_run(page, workplace):
    names: dict = {}
    for block in blocks_of(page):
        where = f"{page.name}, line {block.line}"
        text = block.text
        if block.unrun is not None:
            continue
        if "plan" not in text.split("\n")[0]:
            for name, tiny in workplace.items():
                text = text.replace(name, tiny)
        if block.language == "python":
            exec(compile(text, where, "exec"), names)
        elif block.language == "console":
            run_console(text, where)
        elif block.language == "yaml":
            keep(text)
        else:
            raise AssertionError(f"{where}: a block of '{block.language}' is not run: name its language")


def keep(text: str) -> None:
    """A YAML block whose first line names a file becomes that file; any other is part of a configuration."""
    name = re.match(r"# (\S+\.yaml)\n", text)
    if name:
        Path(name[1]).write_text(text, encoding="utf-8")
    elif "cluster_name" not in text:  # Ray's own file
        configuration.from_dict(configuration.parse_yaml(text, "the block"))


def run_console(text: str, where: str) -> None:
    """Run the lines after `$ `; lines without it must be part of what is printed."""
    printed = ""
    for line in text.splitlines():
        if not line.startswith("$ "):
            assert squeezed(line) in squeezed(printed), f"{where}: not printed: {line}\n{printed}"
            continue
        command, _, expected = line.removeprefix("$ ").partition("  # exit code ")
        words = shlex.split(command)
        assert words[0] == "rankwise", f"{where}: only rankwise can be run here, not {words[0]}"
        code, printed = call(words[1:])
        assert code == int(expected or 0), f"{where}: {command} gave {code}\n{printed}"


def call(words: list[str]) -> tuple[int, str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main(words)
    return code, output.getvalue()


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_few_blocks_are_not_run():
    unrun = [(page.name, block.line, block.unrun) for page in PAGES for block in blocks_of(page) if block.unrun]
    assert {reason for _, _, reason in unrun} <= REASONS
    assert len(unrun) <= MOST_UNRUN, unrun


def test_checks_what_is_shown(workplace):
    """The check itself: output that is not printed, and a wrong exit code, are seen."""
    plan = "$ rankwise plan model.name=roberta-base data.num_labels=4 adapter.scope=[value] adapter.rank=22"
    run_console(f"{plan}\ntrainable 999,172", "here")
    with pytest.raises(AssertionError, match="not printed"):
        run_console(f"{plan}\ntrainable 999,173", "here")
    with pytest.raises(AssertionError, match="gave 0"):
        run_console(f"{plan}  # exit code 2", "here")


def test_the_page_of_keys_is_made_of_the_code():
    import runpy

    pages = runpy.run_path(str(ROOT / "docs" / "keys.py"))["pages"]
    for path, content in pages().items():
        assert content == path.read_text(encoding="utf-8"), f"{path.name}: run python docs/keys.py"


def test_pictures_are_those_the_plans_give(tmp_path):
    """The numbers in the committed pictures are those of today's plans."""
    import runpy

    from rankwise.reporting.drawing import save

    drawn = {path.name: path for path in save(runpy.run_path(str(ROOT / "docs" / "pictures.py"))["CHARTS"], tmp_path)}
    for name in ("budget-head.svg", "budget-ranks.svg"):
        committed = (ROOT / "docs" / "images" / name).read_text(encoding="utf-8")
        texts = [re.findall(r">([^<>\n]+)</text>", svg) for svg in (committed, drawn[name].read_text(encoding="utf-8"))]
        assert texts[0] == texts[1] != []


def test_site_builds_with_warnings_as_errors(tmp_path):
    pytest.importorskip("mkdocs")
    import subprocess
    import sys

    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(ROOT / "mkdocs.yml"),
        "--site-dir",
        str(tmp_path / "site"),
    ]
    outcome = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "BudgetedTextClassifier" in (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    pages = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "site").rglob("*.html"))
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', pages)
    assert [url for url in loaded if "rel=" not in url] == [], "the site asks other servers for something"
