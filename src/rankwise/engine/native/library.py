"""Load the kernels of an instruction set: a wheel's, or those compiled once a user."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from rankwise.engine.native import building
from rankwise.errors import UserError
from rankwise.machine import caches
from rankwise.machine.isa import Isa


class UnavailableError(Exception):
    """Why an instruction set's kernels cannot be had here."""


def library(isa: Isa) -> ctypes.CDLL:
    """The kernels. Where no wheel brought them they are compiled, which takes a few seconds, and kept in the user's cache.

    Raises: UnavailableError.
    """
    try:
        return load(building.built(isa.name))
    except UnavailableError:  # a wheel's may be for another system's C library, or none is there
        return load(_compiled(isa.name))


def load(path: Path) -> ctypes.CDLL:
    """A library that runs here.

    Raises: UnavailableError when it does not, or when others might have written it.
    """
    if not path.exists():
        raise UnavailableError(f"there is no {path}")
    for place in (path, path.parent):
        if _others_may_write(place.stat()):
            raise UnavailableError(
                f"{place} may be written by others than its user: chmod go-w it, or name another RANKWISE_CACHE"
            )
    try:
        loaded = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
    except OSError as error:
        raise UnavailableError(f"the compiled kernels cannot be loaded: {error}") from None
    if loaded.start() != 0:
        raise UnavailableError("the system does not allow the processor's matrix units")
    return loaded


def _others_may_write(status: os.stat_result) -> bool:
    """Whether more than its user and root may. Where the umask leaves it to groups, each user's has nobody else in it."""
    if status.st_uid not in (os.getuid(), 0) or status.st_mode & 0o002:
        return True
    return bool(status.st_mode & 0o020) and not _is_users_own(status.st_gid, status.st_uid)


def _is_users_own(group: int, user: int) -> bool:
    """Whether a group is the one that systems make for each user: of the user's name, without other members."""
    import grp
    import pwd

    try:
        name, found = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:  # of a container: numbers without names
        return False
    return found.gr_name == name and set(found.gr_mem) <= {name}


def _compiled(unit: str) -> Path:
    """The user's library, by what it was made of."""
    compiler = building.compiler()
    if compiler is None:
        raise UnavailableError("there is no C++ compiler to make the kernels with: install g++")
    try:
        folder = caches.cache("native")
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o700)
        return building.kept(compiler, unit, folder)
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        reason = next((line for line in said if "error" in line), said[-1] if said else "without a word")
        raise UnavailableError(f"{compiler} could not make the kernels: {reason}") from None
    except (OSError, UserError) as error:
        raise UnavailableError(f"the kernels cannot be kept: {error}") from None
