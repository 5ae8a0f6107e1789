"""Files are whole or absent, also on a full disk."""

import resource
import subprocess
import sys

import pytest

from rankwise import files
from rankwise.errors import UserError


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), files.replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert files.read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), files.new_folder(tmp_path / "adapter") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for content in ("one", "two"):
        with files.new_folder(tmp_path / "adapter") as folder:
            (folder / "file").write_text(content)
    assert (tmp_path / "adapter" / "file").read_text() == "two"


def test_a_missing_folder_and_a_damaged_file_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist, create it first"):
        files.write_text(tmp_path / "missing" / "x.txt", "x")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        files.read_json(tmp_path / "broken.json")


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on the size of files")
def test_a_full_disk_is_told_in_one_sentence(tmp_path):
    code = f"""
import resource, signal
from pathlib import Path
from rankwise import files
from rankwise.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_text(Path({str(tmp_path / "big.txt")!r}), "x" * 5000)
except UserError as error:
    print(error)
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "big.txt cannot be written" in outcome.stdout, outcome.stderr
    assert list(tmp_path.iterdir()) == []
