"""The command line: errors are a line each, and the exit code says whose they are."""

from __future__ import annotations

import os
import sys

from cyclopts import CycloptsError

from .commands import app
from .errors import NearfarError


def main() -> None:
    """Runs the command line; errors are a line each, and the exit code says whose they are."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        known = [name for name in arguments[:1] if name in app]
        _fail(f"E-usage {error} | {' '.join(arguments[:1])} | {' '.join(['nearfar', *known, '--help'])}", 2)
    except NearfarError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail(
            "E-stopped stopped at once | | the same command again; training goes on from its last checkpoint",
            130,
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        _fail(f"E-bug {what} | nearfar | a mistake of ours: with --debug the same command shows where", 1)


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code)
