"""Files are whole or absent, also on a full disk."""

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time

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


def test_many_writers_of_one_file_all_end_well_and_leave_a_whole_file(tmp_path):
    path, failures = tmp_path / "shared.txt", []

    def write(number):
        for _ in range(25):
            try:
                files.write_text(path, f"{number}" * 4000)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_what_it_points_to_left_alone(tmp_path):
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    files.write_text(tmp_path / "ours", "new")
    assert (tmp_path / "theirs").read_text() == "precious"
    assert (tmp_path / "ours").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_and_a_stream_are_not_replaced(tmp_path):
    """A pipe's reader waited for ever beside a file of its name; root's /dev/stdout became a file for all processes."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(UserError, match="a pipe or a stream"):
            files.write_text(tmp_path / name, "x")
        with pytest.raises(UserError, match="a pipe or a stream"), files.new_folder(tmp_path / name):
            pass
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(UserError, match="a pipe or a stream"):
        files._check_is_place(files.Path("/dev/stdout"))  # whatever it stands for just now


def test_no_name_of_a_file_being_written_can_be_planted(tmp_path):
    """A link at the name that the writer's process number gives once caught what was written."""
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / f".out.txt.{os.getpid()}.part").symlink_to(tmp_path / "theirs")
    files.write_text(tmp_path / "out.txt", "new")
    assert (tmp_path / "theirs").read_text() == "precious"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read(tmp_path, umask):
    before = os.umask(umask)
    try:
        files.write_text(tmp_path / "file", "x")
        with files.new_folder(tmp_path / "folder") as folder:
            (folder / "inner").touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


def test_a_replaced_folder_is_there_at_every_moment(tmp_path):
    with files.new_folder(tmp_path / "adapter") as folder:
        (folder / "file").write_text("0")
    gone, done = [], threading.Event()

    def watch():
        while not done.is_set():
            if not (tmp_path / "adapter" / "file").exists():
                gone.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(60):
        with files.new_folder(tmp_path / "adapter") as folder:
            (folder / "file").write_text(str(number))
    done.set()
    watcher.join()
    assert gone == []
    assert (tmp_path / "adapter" / "file").read_text() == "59"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_what_a_killed_writer_left_is_cleared_and_what_a_live_one_writes_is_not(tmp_path):
    code = f"""
import time
from pathlib import Path
from rankwise import files
with files.replacing(Path({str(tmp_path)!r}) / "out") as file, files.new_folder(Path({str(tmp_path)!r}) / "folder"):
    file.write(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for writer in writers:
            writer.stdout.readline()
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        assert len(list(tmp_path.iterdir())) == 4
        old = time.time() - 3600
        for path in tmp_path.iterdir():
            os.utime(path, (old, old))
        files._cleared.discard(tmp_path)
        files.write_text(tmp_path / "another", "x")
        assert len([path for path in tmp_path.iterdir() if path.name != "another"]) == 2
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
