"""How a command line ends, whatever happened: the exit statuses of every lemof program. The same file in client and
server."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import click

from lemof_model.errors import LemofError

log = logging.getLogger("lemof")


def run_command(app: Callable[..., Any], program: str, arguments: Sequence[str]) -> int:
    """Run one command line of a typer app; the exit status: 0 done, 1 our bug, 2 usage, the ``exit_status`` of a
    ``LemofError``, 130 after Ctrl-C (typer's own)."""
    try:
        return int(app(list(arguments), prog_name=program, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except LemofError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_status
    except Exception as error:  # whatever else comes is ours to mend
        click.echo(
            f"error: this is a bug in lemof ({type(error).__name__}). Run it again with -v and report it.", err=True
        )
        log.debug("traceback", exc_info=True)
        return 1
