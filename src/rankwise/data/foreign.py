"""What a file must not be, told by its first bytes or its ending: pickles, pointers, files of other trades."""

from __future__ import annotations

import re
from pathlib import Path

from rankwise.errors import UserError

PICKLE_SUFFIXES = (".pkl", ".pickle", ".p", ".pck", ".joblib")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_LFS = b"version https://git-lfs.github.com/spec/"
_FOREIGN = (
    (b"SQLite format 3\0", "a SQLite database", "export its table as CSV"),
    (b"ORC", "an ORC file", "write it as Parquet, as pyarrow.orc.read_table does"),
    (b"Obj\x01", "an Avro file", "write it as Parquet or JSON Lines"),
    (b"\x89HDF\r\n", "an HDF5 file", "write its table as Parquet"),
    (b"\x93NUMPY", "a numpy array", "write texts and labels as CSV"),
    (b"%PDF-", "a PDF", "extract its texts into a table"),
    (b"{\\rtf", "an RTF document", "save it as text"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and name what is inside"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it and name what is inside"),
    (b"\x04\x22\x4d\x18", "an LZ4 archive", "unpack it and name what is inside"),
    (b"$FL2", "a file of SPSS", "save it as CSV"),
    (b"<stata_dta>", "a file of Stata", "save it as CSV"),
    (b"MATLAB", "a file of MATLAB", "write texts and labels as CSV"),
    (b"RDX", "a file of R", "write the table with write.csv"),
    (b"X\n\0\0\0", "a file of R", "write the table with write.csv"),
    (b"@RELATION", "an ARFF file of Weka", "save it as CSV"),
    (b"@relation", "an ARFF file of Weka", "save it as CSV"),
    (b"\x89PNG", "a picture", "name a table of texts"),
    (b"\xff\xd8\xff", "a picture", "name a table of texts"),
    (b"GIF8", "a picture", "name a table of texts"),
)
"""First bytes of files that are no tables of ours, what they are, and what to do."""
_MARKUP = re.compile(rb"\s*<(!doctype html|html|\?xml)", re.IGNORECASE)
_AS_ROWS = "write its rows as CSV or JSON Lines"


def refuse_foreign(path: Path, start: bytes) -> None:
    """Raise `UserError` for what is no table and no text, with what to do. A pickle is never opened.

    start
        The first bytes, unpacked where the file is packed.
    """
    ending = path.suffix.lower()
    if start.startswith(_LFS):
        raise UserError(
            f"{path} is a Git LFS pointer that stands for the data: fetch them with  git lfs pull  in its folder"
        )
    if _PICKLE.match(start) or ending in PICKLE_SUFFIXES:
        target = path.with_suffix(".parquet")
        raise UserError(
            f"{path} is a pickle, and opening a pickle runs whatever code it holds, so it is refused: "
            f'if you trust its origin, convert it once with  python -c "import pickle; '
            f"pickle.load(open('{path}', 'rb')).to_parquet('{target}')\"  and name {target} instead"
        )
    known = next(((what, do) for magic, what, do in _FOREIGN if start.startswith(magic)), None)
    markup = _MARKUP.match(start)
    if markup and ending not in (".txt", ""):
        is_page = b"html" in markup[1].lower()
        known = ("an HTML page and no table", "download the file itself") if is_page else ("an XML document", _AS_ROWS)
    if ending in (".yaml", ".yml", ".toml"):
        known = f"{path.suffix[1:].upper()} and no table", _AS_ROWS
    if known is not None:
        raise UserError(f"{path} is {known[0]}: {known[1]}")
