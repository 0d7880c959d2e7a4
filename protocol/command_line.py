"""How a command line begins and ends, whatever happens: the exit statuses of every lemof program."""

import logging
import os
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import click

from lemof_model.errors import LemofError

log = logging.getLogger("lemof")


def run_command(app: Callable[..., Any], program: str, arguments: Sequence[str]) -> int:
    """Run one command line of a typer app; the exit status: 0 done, 1 our bug, 2 usage, the ``exit_status`` of a
    ``LemofError``, 130 after Ctrl-C (typer's own)."""
    try:
        given = [at_home(text) for text in verbose_first(arguments)]
        return int(app(given, prog_name=program, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except LemofError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_status
    except Exception as error:  # whatever else comes is ours to mend
        again = shlex.join([program, "-v", *arguments])
        click.echo(f"error: this is a bug in lemof ({type(error).__name__}). To report it, run: {again}", err=True)
        log.debug("traceback", exc_info=True)
        return 1


def verbose_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with -v before the command, where the program expects it.

    Example:
        >>> verbose_first(["check", "--site", "a", "-v"])
        ['-v', 'check', '--site', 'a']
    """
    others = [argument for argument in arguments if argument not in ("-v", "--verbose")]
    return ["-v"] * (len(others) < len(arguments)) + others


def at_home(argument: str) -> str:
    """An argument with ``~`` written out, also where a shell does not: behind ``--option=``.

    Example:
        >>> home = os.path.expanduser("~")
        >>> at_home("~/a") == f"{home}/a", at_home("--out=~/a") == f"--out={home}/a", at_home("a~")
        (True, True, 'a~')
    """
    option, sign, value = argument.partition("=")
    if sign and option.startswith("--"):
        return f"{option}={os.path.expanduser(value)}"
    return os.path.expanduser(argument)
