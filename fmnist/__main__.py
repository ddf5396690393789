"""How a command begins and ends: signals, exit codes, and errors as one line."""

import io
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from fmnist import signals
from fmnist.errors import Failure, Stopped, UserError, as_typed, explain, one_line


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 failed, 2 bad input, 130 and 143 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    _mend_streams()
    signals.exit_on_signals()
    try:
        code = _run(given)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        code, message = _told(error)
        if message:
            sys.stderr.write(f"fmnist: {as_typed(message)}\n")
    sys.exit(code)


def _run(given: list[str]) -> int:
    """The exit code of a verb that ends by itself."""
    try:
        sys.path.append(str(Path.cwd()))  # where --model module:function of one's own lies
    except FileNotFoundError as error:
        raise UserError("the current folder", "is gone; change to one that is there") from error
    import fmnist.manage  # its verbs join the others'
    import fmnist.searching
    import fmnist.upkeep  # noqa: F401
    from fmnist.cli import app

    signals.raise_on_signals()
    code = app(given, prog_name="fmnist", standalone_mode=False)  # what typer.Exit holds, or nothing
    sys.stdout.flush()
    return int(code or 0)


def _mend_streams() -> None:
    """Printing never fails for a name that the terminal cannot show, nor where an output was closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as the process lives
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _told(error: BaseException) -> tuple[int, str]:
    """(exit code, the line to print) for what ended a command."""
    # No import before this: what was interrupted may be one, and some C modules complain of a second start.
    if isinstance(error, (Stopped, KeyboardInterrupt)):
        return 128 + (signals.received or signal.SIGINT), str(error) or "interrupted"
    from pydantic import ValidationError
    from typer.exceptions import TyperException

    match error:
        case UserError() | Failure():
            return error.exit_code, str(error)
        case ValidationError():
            return 2, str(explain(error, lambda field: "--" + field.replace("_", "-")))
        case TyperException():
            message = one_line(error.format_message()).rstrip(".").replace(". ", "; ")
            return error.exit_code, f"{message[:1].lower()}{message[1:]}; see fmnist --help"
        case BrokenPipeError():  # fmnist runs | head
            sys.stdout = None  # so that the interpreter does not flush it again
            return 1, ""
        case ModuleNotFoundError():
            extras = {"honcho": "up", "optuna": "cluster", "ray": "cluster"}
            extras |= dict.fromkeys(("orjson", "prometheus_client", "python_multipart", "uvicorn"), "serve")
            extra = extras.get(error.name or "", "train")
            return (
                1,
                f"{error.name}: is not installed; in the checkout: make setup, or pip install '.[{extra}]'",
            )
        case OSError() if error.filename:
            return 1, f"{error.filename}: {error.strerror}; mend that and run the command again"
        case OSError() if error.strerror:  # writing to stdout, mostly
            sys.stdout = None
            return 1, f"output: {error.strerror}; mend that and run the command again"
    if signals.received:  # in the middle of an import, mostly, which made another error of it
        return 128 + signals.received, "interrupted"
    return 1, f"unexpected {type(error).__name__}: {one_line(error)}; see it whole with --debug, and report it"


if __name__ == "__main__":
    main()
