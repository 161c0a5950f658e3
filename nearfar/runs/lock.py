"""One writer for each run folder. The lock belongs to the process, so a killed process leaves none behind."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import IO

from ..errors import UsageError

NAME = ".lock"


def acquire(folder: Path) -> IO[str]:
    """Locks the folder for this process, until the returned file is closed.

    The lock of `flock(2)` (Windows: `LockFile`) ends with the process, whatever ended it. The file itself stays.

    Raises:
        UsageError: Another process holds it.
    """
    file = open(folder / NAME, "a+", encoding="ascii")  # noqa: SIM115 - open as long as the lock is held
    try:
        _lock(file)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise
        what = f"another process writes to this run (process id {holder})"
        raise UsageError(what, where=folder, mend="wait for it or stop it, or choose another --out") from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(1 << 20)  # a locked byte cannot be read by others, and the process id should be
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
