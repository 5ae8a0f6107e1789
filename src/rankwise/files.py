"""Files that are whole or absent: written beside their place and moved into it; and which files a model's weights are."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from rankwise.errors import UserError

fcntl: Any
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

_POINTER = b"version https://git-lfs.github.com/spec"


_PREFIX = ".rankwise-part-"
"""of files and folders being written"""
_NEW_S = 60.0
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | getattr(os, "O_BINARY", 0)
_STREAMS = ("/dev", "/dev/fd", "/proc/self/fd")
_HERE = -100
"""AT_FDCWD: names are relative to the working folder"""
_cleared: set[Path] = set()
"""folders that this process has looked for leftovers in"""


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
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """An open binary file beside `path` that takes its place when the block ends well and vanishes when not.

    Its name cannot be foreseen and no link is followed on the way, so neither another writer nor a planted link meets it;
    a link at `path` itself is replaced, and what it points to is left alone.

    mode
        Permissions, less what the umask takes away.

    Raises: UserError when the folder is missing or read-only, or the disk is full.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected the name of a file to write")
    _check_is_place(path)
    with writing(path):
        part = _unused(path.parent)
        handle = open(part, "w+b", opener=lambda name, _: os.open(name, _NEW, mode))  # noqa: SIM115
    try:
        try:
            _hold(handle.fileno())
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
            _sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path, mode=mode) as file, writing(path):
        file.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, numbers in full precision."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; UserError when it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())  # UTF-8, UTF-16 or UTF-32, with a mark or without
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
def new_folder(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A folder to fill that takes the name `path` when the block ends well, and vanishes when it does not.

    A folder that stands there already is there until this one is, and is removed afterwards.

    durable
        Whether it must outlive a loss of power: to bring each of 50,000 files to the disk takes minutes, and what can be made
        again is not worth them.
    """
    _check_is_place(path)
    with writing(path):
        temporary = _unused(path.parent)
        temporary.mkdir()
    held = None
    try:
        held = _open_folder(temporary)
        yield temporary
        with writing(path):
            for file in temporary.rglob("*") if durable else ():
                _sync(file)
            _sync(temporary)
            _take_place(temporary, path)
    finally:
        if held is not None:
            os.close(held)
        shutil.rmtree(temporary, ignore_errors=True)  # what failed, or what stood there before


def _check_is_place(path: Path) -> None:
    """Refuse to replace what is no file: a device, a pipe that somebody reads from, the system's own names of streams."""
    special = path.exists() and not path.is_dir() and not path.is_file()
    if special or str(path.absolute().parent) in _STREAMS:
        raise UserError(
            f"{path} is a device, a pipe or a stream, which no file may replace: write a file, and copy it there"
        )


def _take_place(temporary: Path, path: Path) -> None:
    """Give a folder its name; one that had it is at `temporary` afterwards."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        temporary.replace(path)
    elif not _exchanged(temporary, path):
        before = _unused(path.parent)
        path.replace(before)
        try:
            temporary.replace(path)
        except OSError:
            before.replace(path)
            raise
        before.replace(temporary)
    _sync(path.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step, where the system can; otherwise False, and nothing has changed."""
    names = os.fsencode(one), os.fsencode(other)
    swap = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    try:
        library: Any = ctypes.CDLL(None)
        on_linux = hasattr(library, "renameat2")
        status = (
            library.renameat2(_HERE, names[0], _HERE, names[1], swap) if on_linux else library.renamex_np(*names, swap)
        )
    except (OSError, AttributeError, TypeError):  # no such call in this system's library
        return False
    return bool(status == 0)


def _unused(folder: Path) -> Path:
    """A name in a folder that nobody can foresee; what killed writers left there is cleared away first."""
    if folder not in _cleared:
        _cleared.add(folder)
        _clear_leftovers(folder)
    return folder / f"{_PREFIX}{secrets.token_hex(8)}"


def _clear_leftovers(folder: Path) -> None:
    """Remove what writers left that no longer live: the system let go of their hold when they died."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_PREFIX}*"):
            # One that has just been made may not be held yet.
            if time.time() - path.lstat().st_mtime > _NEW_S and _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    if fcntl is None:
        return time.time() - path.lstat().st_mtime > 24 * 3600
    descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _open_folder(path: Path) -> int | None:
    """A folder held open until it is closed, where the system can."""
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    _hold(descriptor)
    return descriptor


def _hold(descriptor: int) -> None:
    """Mark an open file as one whose writer lives. Without it, on a file system without locks, it is cleared by its age."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync(path: Path) -> None:
    """Bring a file or a folder's names to the disk, so that they outlive a loss of power."""
    if not path.is_dir() or fcntl is not None:  # Windows opens no folder
        with contextlib.suppress(OSError):  # nor do some file systems sync one
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


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
