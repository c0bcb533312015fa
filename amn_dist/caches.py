"""Where libraries keep what they compile, and their sockets: where they cannot write, they are told of another place.

They are told by variables of the environment, which processes hand on; what the user has set stays.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from amn_dist.errors import ConfigError, printable

PACKAGE = Path(__file__).parent
USUAL: dict[str, tuple[str, ...]] = {
    "NUMBA_CACHE_DIR": (str(PACKAGE), "~/.cache/numba"),
    "TRITON_CACHE_DIR": ("~/.triton/cache",),
    "TORCH_EXTENSIONS_DIR": ("~/.cache/torch_extensions",),
    "TORCH_HOME": ("~/.cache/torch",),
    "MPLCONFIGDIR": ("~/.config/matplotlib",),
}
"""Variable by variable, the places a library tries by itself; it is told of another one where none can be written."""
SOCKETS = "RAY_TMPDIR"
"""Variable: the folder of Ray's sockets and logs; that of temporary files without it."""
LONGEST = 38
"""Bytes of that folder: a socket's path has 107 at most, of which /ray/session_.../sockets/plasma_store takes 69."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders for sockets where that of temporary files is too long."""


def redirect() -> None:
    """Tell libraries of places they can write to, before they look; nothing where they find some by themselves."""
    with suppress(ConfigError, OSError):
        for variable in (name for name, places in USUAL.items() if not any(map(may_write, places))):
            if variable not in os.environ:
                os.environ[variable] = str(private_folder() / variable.lower())
    if "numba" in sys.modules and (place := os.environ.get("NUMBA_CACHE_DIR")):
        sys.modules["numba"].config.CACHE_DIR = place  # it has read the environment already
    with suppress(ConfigError):
        if (folder := socket_folder()) != temporary_folder():
            os.environ[SOCKETS] = folder


def private_folder(variable: str = "TMPDIR") -> Path:
    """A folder of this user alone among the temporary files. Raises ConfigError where somebody else has made it.

    variable: by which another folder can be had.
    """
    folder = Path(temporary_folder()) / f"amn-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):  # anybody may put a name into that folder
        raise ConfigError(f"{folder}: belongs to somebody else; set {variable} to a local folder of yours")
    return folder


def socket_folder() -> str:
    """Where Ray's sockets go: as the user says, else that of temporary files, else a short one.

    Raises ConfigError, which names the variable, where paths would be too long for sockets.
    """
    named = os.environ.get(SOCKETS)
    folder = named or temporary_folder()
    if len(os.fsencode(folder)) <= LONGEST:
        return folder
    short = next((place for place in SHORT if may_write(place)), None)
    if named or short is None:
        raise ConfigError(
            f"{SOCKETS if named else 'TMPDIR'}: {printable(folder)} has {len(os.fsencode(folder))} bytes, sockets need "
            f"a folder of at most {LONGEST}; set {SOCKETS} to a shorter one"
        )
    return short


def temporary_folder() -> str:
    """The platform's folder of temporary files. Raises ConfigError where none can be written."""
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise ConfigError("TMPDIR: no folder for temporary files can be written; set it to one that can") from error


def may_write(place: str) -> bool:
    """Whether a folder can be written, or made; a home that nobody knows is no place."""
    path = Path(os.path.expanduser(place))
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.is_absolute() and os.access(path, os.W_OK | os.X_OK)
