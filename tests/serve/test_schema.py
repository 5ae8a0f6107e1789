"""Whatever the schema lets a client send, and more, is answered without an error of the server's."""

import subprocess
import sys
from importlib.util import find_spec

import pytest


@pytest.mark.slow
@pytest.mark.skipif(find_spec("schemathesis") is None, reason="needs schemathesis")
def test_no_request_ends_in_an_error(client, tmp_path):
    schemathesis = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"
    words = [
        "run",
        f"{client.url}/openapi.json",
        "--checks",
        "not_a_server_error",
        "--max-examples",
        "40",
        "--seed",
        "1",
    ]
    options = ["--mode", "all", "--phases", "examples,coverage,fuzzing", "--no-color"]
    outcome = subprocess.run(
        [sys.executable, "-c", schemathesis, *words, *options], capture_output=True, text=True, cwd=tmp_path
    )
    assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-2000:]
    assert "generated" in outcome.stdout
