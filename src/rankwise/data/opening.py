"""The bytes of a file that may be packed: what it is, what it must not be, and a stream of what is inside.

Gzip, bzip2, xz, Zstandard and zip archives of one file are known by their first bytes, whatever they are called.
"""

from __future__ import annotations

import io
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

from rankwise.data.foreign import refuse_foreign
from rankwise.errors import UserError, listed, nearest, reason_of

MAX_TEXT_CHARS = 1_000_000
"""Characters a text may have. Longer ones are mostly files that lost their line breaks."""

MAX_LINE_CHARS = 8 * MAX_TEXT_CHARS
"""Characters a line of a file may have: several columns, or a text written in JSON escapes."""

TOO_LONG = (
    f"a text may have at most {MAX_TEXT_CHARS:,} characters; shorten it, or mend an unclosed quote or lost line breaks"
)
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tgz", ".tar")

_MAGIC = ((b"\x1f\x8b", "gzip"), (b"BZh", "bz2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
MAX_RATIO = 300
"""Prose packs to a third or a tenth, and a table of one repeated sentence to a hundredth; only filler packs further."""
_RATIO_FROM_BYTES = 64 << 20
_CHUNK = 1 << 20
# Read into one stream before it is known how long it is: enough to look at a header.
_START = 4096


@dataclass(frozen=True)
class Opener:
    """A regular file and how its bytes are packed.

    Attributes:
        path: the file.
        packing: gzip, bz2, xz, zstd or zip; None when the bytes are the data's own.
        name: what the data are called inside: the member of a zip archive, or the file's name without `.gz`.
        part: what `FILE[part]` asked for: a sheet, a split or a member.
    """

    path: Path
    packing: str | None
    name: str
    part: str | None = None

    @property
    def suffix(self) -> str:
        """The ending of the data inside, in lower case."""
        return Path(self.name).suffix.lower()

    def open(self) -> IO[bytes]:
        """The bytes inside, from their start, as they are unpacked.

        Raises `UserError` on reading a damaged archive, or one that unpacks to more than any text does.
        """
        if self.packing is None:
            return self.path.open("rb")
        return io.BufferedReader(_Unpacked(self), _CHUNK)

    def whole(self) -> IO[bytes]:
        """The bytes inside as a file that can be sought in: unpacked to a temporary one where need be."""
        if self.packing is None:
            return self.path.open("rb")
        file = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115  it outlives this call
        with self.open() as stream:
            shutil.copyfileobj(stream, file, _CHUNK)
        file.seek(0)
        return file

    def refuse_filler(self) -> None:
        """Raise `UserError` where the bytes inside begin as those of an archive made to fill a disk."""
        if self.packing is not None:
            with self.open() as file:
                for _ in zip(chunks(file), range(2 * _RATIO_FROM_BYTES // _CHUNK), strict=False):
                    pass

    def start(self) -> bytes:
        """The first bytes inside."""
        with self.open() as file:
            return file.read(_START)


def opener(path: Path, part: str | None = None) -> Opener:
    """How to open a file.

    Raises `UserError` for what is no regular file, a pickle, a Git LFS pointer, and an archive of several files.
    """
    plain = Opener(path, None, path.name, part)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a named pipe" if stat.S_ISFIFO(mode) else "a device" if stat.S_ISCHR(mode) else "no regular file"
            raise UserError(f"{path} is {kind}, and rows are read more than once: write them to a file and name that")
        start = plain.start()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    refuse_foreign(path, start)
    packing = _packing(start)
    if packing is not None:
        is_named = path.suffix.lower() in PACKED_SUFFIXES
        plain = Opener(path, packing, path.stem if is_named else path.name, part)
        start = plain.start()
        refuse_foreign(path, start)
        if _packing(start):
            raise UserError(f"{path} is packed twice: unpack it once and name what comes out")
    is_zip = packing is None and start.startswith(b"PK\x03\x04") and not is_workbook(path)
    return _zip(path, part) if is_zip else plain


def _packing(start: bytes) -> str | None:
    return next((name for magic, name in _MAGIC if start.startswith(magic)), None)


def split_part(source: str) -> tuple[str, str | None]:
    """`FILE[part]` as its file and its part; a file that is called so is meant itself."""
    if source.endswith("]") and "[" in source and not Path(source).expanduser().exists():
        name, _, part = source[:-1].rpartition("[")
        if name and Path(name).expanduser().exists():
            return name, part
    return source, None


def is_here(source: str) -> bool:
    """Whether a source is a file or folder that is there."""
    return Path(split_part(source)[0]).expanduser().exists()


def existing(source: str | Path, key: str = "") -> Path:
    """The path of a file or folder that is there; else `UserError` with the nearest name in its folder."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    near = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else ""
    raise UserError(f"{key}there is no file or folder {path}{near}")


_IS_ABOUT = re.compile(r"(readme|licen[cs]e|citation|changelog)\b|.*\.(md|rst|pdf|html?|docx?)$")
"""files that archives hold beside their data"""


# --- archives -----------------------------------------------------------------------------------------


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is not a whole zip archive ({error}): download it again") from error


def is_workbook(path: Path) -> bool:
    """Whether a zip archive is a spreadsheet, .xlsx or .ods: those are read as they are."""
    names = {member.filename for member in _members(path)}
    return "[Content_Types].xml" in names or {"mimetype", "content.xml"} <= names


def _zip(path: Path, part: str | None) -> Opener:
    """The one file of an archive, papers about it aside, or the one that is named."""
    shown = inside(path)
    tables = [name for name in shown if not is_about(name)]
    if part in shown:
        return Opener(path, "zip", str(part))
    if len(tables) == 1:
        return Opener(path, "zip", tables[0], part)
    raise which_of(path, part, shown)


def which_of(path: Path, part: str | None, names: Sequence[str]) -> UserError:
    """The question which file of an archive is meant."""
    asked = f"has no file '{part}' inside" if part else "holds several files" if names else "holds no file"
    hint = f" ({listed(names, 8)}): name one, as in {path}[{names[0]}], or unpack it" if names else ""
    return UserError(f"{path} {asked}{hint}")


def inside(path: Path) -> list[str]:
    """The files in a zip archive that no program put there for itself."""
    return [m.filename for m in _members(path) if not m.is_dir() and not is_aside(m.filename)]


def is_aside(member: str) -> bool:
    """Whether a file of an archive was put there by a program: hidden, or a Mac's."""
    return member.startswith("__MACOSX/") or Path(member).name.startswith(".")


def is_about(member: str) -> bool:
    """Whether a file is about the data beside it."""
    return _IS_ABOUT.match(Path(member).name.lower()) is not None


def _unpacking(file: Opener, packed: IO[bytes]) -> Any:
    """A stream of what is inside; the library of a packing, which not every Python is built with, is loaded for it alone."""
    if file.packing == "zip":
        return zipfile.ZipFile(packed).open(file.name)
    if file.packing == "zstd":
        import pyarrow as pa  # carries Zstandard, so that no package of its own is needed

        return pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")
    return import_module({"xz": "lzma"}.get(str(file.packing), str(file.packing))).open(packed)


class _Unpacked(io.RawIOBase):
    """What is inside a packed file, guarded by the ratio of bytes out to bytes in."""

    def __init__(self, file: Opener) -> None:
        self._file = file
        self._packed = file.path.open("rb")
        self._out = 0
        try:
            self._stream = _unpacking(file, self._packed)
        except (OSError, zipfile.BadZipFile, KeyError, RuntimeError) as error:
            self._packed.close()
            raise self._damaged(error) from error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._stream.read(len(buffer))
        except Exception as error:  # zlib.error and lzma.LZMAError share no base below Exception
            raise self._damaged(error) from error
        buffer[: len(chunk)] = chunk
        self._out += len(chunk)
        taken = self._packed.tell()
        if self._out > _RATIO_FROM_BYTES and self._out > MAX_RATIO * taken:
            raise UserError(
                f"{self._file.path} unpacks to {self._out // max(1, taken):,} times its bytes, which no text does: it is "
                "filler or damaged, so it is not read; unpack it yourself if it is really data"
            )
        return len(chunk)

    def _damaged(self, error: Exception) -> UserError:
        return UserError(
            f"{self._file.path} cannot be unpacked ({self._file.packing}: {reason_of(error)}): download it again"
        )

    def close(self) -> None:
        if not self.closed:
            self._packed.close()
        super().close()


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """A stream's bytes, a megabyte at a time."""
    while chunk := file.read(_CHUNK):
        yield chunk
