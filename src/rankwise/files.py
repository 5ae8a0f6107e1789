"""Files that are whole or absent: written beside their place and moved into it; and which files a model's weights are."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rankwise.errors import UserError

_POINTER = b"version https://git-lfs.github.com/spec"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into one sentence that names the file the user asked for."""
    try:
        yield
    except OSError as error:
        missing = not path.parent.is_dir()
        reason = f"the folder {path.parent} does not exist, create it first" if missing else (error.strerror or error)
        raise UserError(f"{path} cannot be written: {reason}") from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """An open binary file beside `path` that takes its place when the block ends well and vanishes when not.

    Raises: UserError when the folder is missing or read-only, or the disk is full.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected the name of a file to write")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        handle = part.open("w+b")
    try:
        try:
            yield handle
            with writing(path):
                handle.flush()
                os.fsync(handle.fileno())
        finally:
            # Closing flushes too, and on a full disk fails too.
            with writing(path):
                handle.close()
        with writing(path):
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as file, writing(path):
        file.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, numbers in full precision."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; UserError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        check_no_pointer(path)
        raise UserError(f"{path} is not valid JSON: {error}") from error


def check_no_pointer(path: Path) -> None:
    """Refuse what Git leaves of a large file where its LFS extension is missing: a few lines that stand for it."""
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UserError(f"{path} is a pointer of Git LFS, not the file itself: fetch it with  git lfs pull")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes the name `path` when the block ends well, and vanishes when it does not."""
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def make_writable_folder(path: Path) -> None:
    """Make a folder and prove that a file can be written in it.

    Raises: UserError when it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"the folder {path} cannot be written to ({error.strerror}): choose another") from error


def cache(kind: str) -> Path:
    """The folder of this user's caches of a kind (`tokens`, `packaged`), made at first use.

    RANKWISE_CACHE names another place for all of them.
    """
    base = os.environ.get("RANKWISE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    folder = (root if os.environ.get("RANKWISE_CACHE") else root / "rankwise") / kind
    make_writable_folder(folder)
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder: one, or the shards its index names; none where there is neither.

    Raises: UserError for an index that cannot be read or names a file that is absent.
    """
    single = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"model.name: {index} is no safetensors index: {error}") from error
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise UserError(f"model.name: {index} names {absent[0]}, which is not in the folder: copy all shards")
    return [folder / name for name in names]
