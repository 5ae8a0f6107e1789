"""Records: JSON objects with a version, read leniently and written back with whatever this version does not know.

A key that a newer version added is kept and written again; one that is absent takes its default; a file of an older
version is upgraded as it is read. What is there but of another kind than it should be is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
from filelock import FileLock, Timeout

from rankwise import files
from rankwise.errors import UserError

Tree = dict[str, Any]
"""A JSON object: names and plain values."""
LOCK = ".lock"
"""in the folder of a run or a search while a process works in it"""
Upgrade = Callable[[Tree], None]


class Record(msgspec.Struct, kw_only=True):
    """A JSON object of which some keys are known.

    unknown
        The keys of the file that this version does not know, by name; they are written back as they were.
    """

    OMITTED: ClassVar[tuple[str, ...] | None] = ()
    """fields that are left out of the file while they are None or empty; None for any"""
    UPGRADES: ClassVar[tuple[Upgrade, ...]] = ()
    """what brings a file of version n to n + 1, the first of them one of version 1, which files without a version are"""

    unknown: Tree = msgspec.field(default_factory=dict, name="")  # a name that no file uses

    def to_dict(self) -> Tree:
        """Plain values for JSON, the unknown keys after the known ones."""
        tree = {}
        for name, key in zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True):
            value = getattr(self, name)
            omitted = self.OMITTED is None or name in self.OMITTED
            if name == "unknown" or (omitted and value in (None, [], {})):
                continue
            tree[key] = _plain(value)
        return tree | self.unknown


RecordT = TypeVar("RecordT", bound=Record)


def of_tree(kind: type[RecordT], tree: Mapping[str, Any], where: object = "the record") -> RecordT:
    """The record of plain values.

    where
        What the sentence of a refusal calls them.

    Raises: UserError when a value is of another kind than its key asks for.
    """
    upgraded = dict(tree)
    version = upgraded.get("version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f"{where} is damaged: its version is {version!r}, expected a number from 1")
    try:
        for upgrade in kind.UPGRADES[version - 1 :]:
            upgrade(upgraded)
        if kind.UPGRADES:
            upgraded["version"] = max(version, len(kind.UPGRADES) + 1)
        record = msgspec.convert(upgraded, kind)
    except (msgspec.ValidationError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where} is damaged, {_said(error)}") from error
    _keep_unknown(record, upgraded)
    return record


def read(path: Path, kind: type[RecordT]) -> RecordT:
    """The record in a file.

    Raises: UserError when there is none, or it is damaged.
    """
    tree = files.read_json(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path} is damaged: expected a JSON object, got {type(tree).__name__}")
    return of_tree(kind, tree, path)


def write(path: Path, record: Record) -> None:
    """Replace a file by a record, in one rename."""
    files.write_json(path, record.to_dict())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Others that change the file wait until the block has ended. The system lets go when a process dies.

    Raises: UserError when the lock's file cannot be written.
    """
    with files.writing(path):
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def owned(folder: Path, taken: str) -> Iterator[None]:
    """Hold a folder as the only process that works in it. The system lets go when the process dies.

    taken
        What is said where another process holds it.

    Raises: UserError then, and when the lock's file cannot be written.
    """
    lock = FileLock(folder / LOCK)
    with files.writing(folder / LOCK):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(taken) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def changing(path: Path, kind: type[RecordT]) -> Iterator[RecordT]:
    """The record in a file, to be changed in the block and written when it ends well; others that change it wait.

    Raises: UserError when there is none, or it is damaged.
    """
    with locked(path):
        record = read(path, kind)
        yield record
        write(path, record)


def _said(error: Exception) -> str:
    return str(error)[0].lower() + str(error)[1:] if str(error) else type(error).__name__


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _keep_unknown(value: Any, tree: Any) -> None:
    """Give every record within a value the keys of its tree that it does not know."""
    if isinstance(value, Record) and isinstance(tree, Mapping):
        known = dict(zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True))
        value.unknown = {key: inner for key, inner in tree.items() if key not in known}
        for key, name in known.items():
            if key in tree:
                _keep_unknown(getattr(value, name), tree[key])
    elif isinstance(value, dict) and isinstance(tree, Mapping):
        for key, inner in value.items():
            _keep_unknown(inner, tree.get(key))
    elif isinstance(value, list | tuple) and isinstance(tree, list | tuple):
        for inner, inner_tree in zip(value, tree, strict=False):
            _keep_unknown(inner, inner_tree)
