"""What every command has in common: ``--json``, ``--quiet``, ``--verbose``, ``--debug``, and how its errors end.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 done but incomplete, 130 stopped from outside.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from pipelines.cli.output import Output, Report, write_json
from pipelines.redaction import redacted
from transforms.errors import AuthenticationError, CallHistoryError, SettingsError, StorageError

DONE, FAILED, WRONG_USAGE, INCOMPLETE, STOPPED = 0, 1, 2, 3, 130

_COMMON_OPTIONS = [
    inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option(flag, help=description)],
    )
    for name, flag, description in (
        ("as_json", "--json", "Print one JSON object on stdout; logs go to stderr."),
        ("quiet", "--quiet", "Print nothing while all is well: only warnings, errors, and what is incomplete."),
        ("verbose", "--verbose", "Tell every step and every retry on stderr."),
        ("debug", "--debug", "Show the traceback of an error; it may quote data."),
    )
]

P = ParamSpec("P")


class UsageError(Exception):
    """An argument that makes no sense; the text says which, and what would."""


def command(body: Callable[Concatenate[Output, P], Report]) -> Callable[..., None]:
    """Make ``body`` a typer command with the common options, whose errors are one line and an exit code.

    The body of a group, which takes typer's ``context``, is left out when a sub-command follows.

    With ``--json`` whatever ``body`` prints goes to stderr, and an error is a JSON object as well.
    """

    @functools.wraps(body)
    def run(*, as_json: bool, quiet: bool, verbose: bool, debug: bool, **arguments: Any) -> None:
        if getattr(arguments.get("context"), "invoked_subcommand", None) is not None:
            return
        from sinks.private_files import UMASK

        os.umask(UMASK)
        output = Output(as_json=as_json, verbose=verbose, quiet=quiet)
        try:
            if quiet and verbose:
                raise UsageError("--quiet and --verbose: leave one of them out")
            with output.streams():
                report = body(output, **arguments)  # type: ignore[call-arg]  # typer passes what it was told below
            output.finish(report)
        except BrokenPipeError:
            # Whoever was reading has seen enough; Python would complain once more when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last resort before the user
            if debug and output.json_logs:
                output.log("traceback", logging.ERROR, traceback=redacted("".join(traceback.format_exception(error))))
            elif debug:
                sys.stderr.write(redacted("".join(traceback.format_exception(error))))
            raise typer.Exit(report_error(output, error)) from None
        raise typer.Exit(report.exit_code)

    own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
    signature = inspect.Signature(
        [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own), *_COMMON_OPTIONS]
    )
    del run.__dict__["__wrapped__"]
    run.__dict__["__signature__"] = signature
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


def report_error(output: Output, error: BaseException) -> int:
    """Tell the user what went wrong, in one line on stderr and with ``--json`` on stdout too; return the exit code."""
    message, exit_code = _described(error)
    level = logging.WARNING if exit_code == STOPPED else logging.ERROR
    output.log(message if exit_code == STOPPED else f"error: {message}", level, error_type=type(error).__name__)
    if output.as_json:
        write_json({"error": message, "error_type": type(error).__name__})
    return exit_code


def _described(error: BaseException) -> tuple[str, int]:
    match error:
        case KeyboardInterrupt():
            return "stopped; what was under way is undone, and the next run does it again", STOPPED
        case UsageError():
            return str(error), WRONG_USAGE
        case AuthenticationError() | StorageError():
            return str(error), FAILED
        case SettingsError():
            return str(error), WRONG_USAGE
        case CallHistoryError():
            return str(error), FAILED
    # The text of a foreign exception may quote a row, so it waits for --debug.
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}, line {place.lineno}"
    return f"{type(error).__name__} in {where}: this is a bug in callhistory; --debug shows more", FAILED
