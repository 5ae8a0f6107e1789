"""Archives of several files: unpacked once into the cache, and read as the folder they are."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from rankwise import files
from rankwise.data.opening import MAX_RATIO, chunks, inside, is_about, is_aside, is_workbook, opener
from rankwise.errors import UserError, reason_of
from rankwise.machine import caches

_MAX_FILES = 2_000_000
"""ten times those of the largest set of texts in files that is passed around"""
_FREE = 1 << 28


def unpacked(path: Path) -> Path | None:
    """The folder of an archive's files; None for a file that is none, or an archive of one table.

    What is said of archives made to fill a disk holds here too: more than 300 times their bytes is no text. Links and
    devices are passed over, and nothing is written outside of the folder.

    Raises `UserError` for an archive that is damaged or made to fill a disk.
    """
    if not path.is_file():
        return None
    if zipfile.is_zipfile(path):
        if is_workbook(path) or sum(not is_about(name) for name in inside(path)) <= 1:
            return None  # one table
        members = _zip_members
    elif _is_tar(path):
        members = _tar_members
    else:
        return None
    state = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:24]
    folder = caches.cache("unpacked") / key
    if not folder.is_dir():
        try:
            with files.new_folder(folder, durable=False) as making:
                _write(path, members(path), making)
        except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, RuntimeError) as error:
            raise UserError(f"{path} cannot be unpacked ({reason_of(error)}): download it again") from error
    top = [p for p in folder.iterdir() if not is_about(p.name)]
    return top[0] if len(top) == 1 and top[0].is_dir() else folder


def holds_roles(path: Path) -> bool:
    """Whether a file is an archive of several files, of which each role may have its own."""
    folder = unpacked(path)
    return folder is not None and only_table(folder) is None


def only_table(folder: Path) -> Path | None:
    """The one file below a folder, papers about it aside; None where there are several."""
    found = [p for p in folder.rglob("*") if p.is_file() and not is_about(p.name)]
    return found[0] if len(found) == 1 else None


def names_in(folder: Path) -> list[str]:
    """The files below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def _is_tar(path: Path) -> bool:
    """Whether a file is a tar archive, packed or not: its name says so, or its first block."""
    try:
        return opener(path).start()[257:262] == b"ustar"
    except UserError:
        return False


def _zip_members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                with archive.open(member) as content:
                    yield member.filename, content


def _tar_members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with opener(path).open() as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, content


def _write(path: Path, members: Iterator[tuple[str, IO[bytes]]], folder: Path) -> None:
    """Write the members below a folder."""
    most = max(MAX_RATIO * path.stat().st_size, 1 << 26)
    written = 0
    for number, (name, content) in enumerate(members):
        parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
        if not parts or is_aside(name):
            continue
        place = folder.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            for chunk in chunks(content):
                written += len(chunk)
                if written > most or number > _MAX_FILES:
                    raise UserError(
                        f"{path} unpacks to more than {MAX_RATIO} times its bytes, or to millions of files, which no texts do: "
                        "it is filler or damaged, so it is not read; unpack it yourself if it is really data"
                    )
                if shutil.disk_usage(folder).free < _FREE:
                    raise UserError(
                        f"{path} does not fit on the disk of {folder.parent}: unpack it elsewhere and name that folder"
                    )
                file.write(chunk)
