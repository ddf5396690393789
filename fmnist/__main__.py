"""How a command begins and ends: signals, exit codes, and errors as one line."""

import signal
import sys
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError
from typer.exceptions import TyperException

import fmnist.manage  # noqa: F401 - its verbs join the others
from fmnist.cli import Stopped, app
from fmnist.errors import Failure, UserError, explain, one_line


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 failed, 2 bad input, 130 and 143 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    signal.signal(signal.SIGTERM, _terminate)
    sys.path.append(str(Path.cwd()))  # where --model module:function of one's own lies
    try:
        app(given, prog_name="fmnist", standalone_mode=False)
        sys.stdout.flush()
        code = 0
    except Exception as error:
        if debug:
            raise
        code, message = _told(error)
        if message:
            sys.stderr.write(f"fmnist: {message}\n")
    sys.exit(code)


_terminated = False


def _terminate(signum: int, frame: object) -> NoReturn:
    """SIGTERM ends things as Ctrl-C does, with an exit code of its own."""
    global _terminated
    _terminated = True
    raise KeyboardInterrupt


def _told(error: Exception) -> tuple[int, str]:
    """(exit code, the line to print) for what ended a command."""
    match error:
        case UserError() | Failure():
            return error.exit_code, str(error)
        case Stopped():
            return (143 if _terminated else 130), str(error)
        case ValidationError():
            return 2, str(explain(error, lambda field: "--" + field.replace("_", "-")))
        case TyperException():
            message = one_line(error.format_message()).rstrip(".").replace(". ", "; ")
            return error.exit_code, f"{message[:1].lower()}{message[1:]}; see fmnist --help"
        case BrokenPipeError():  # fmnist runs | head
            sys.stdout = None  # so that the interpreter does not flush it again
            return 1, ""
        case ModuleNotFoundError():
            return 1, f"{error.name}: is not installed; install what this command needs: pip install 'fmnist[train]'"
        case OSError() if error.filename:
            return 1, f"{error.filename}: {error.strerror}; mend that and run the command again"
    return 1, f"unexpected {type(error).__name__}: {one_line(error)}; see it whole with --debug, and report it"


if __name__ == "__main__":
    main()
