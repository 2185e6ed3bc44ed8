"""Commands that call a running service over HTTP, through `clockwork.client`; `clockwork.__main__` lists all commands.

Exit codes of the whole command line:

    0  done
    1  a defect of the program, output that could not be written, or a question that was not answered with yes
    2  the command line is wrong; of `run`, `init`, `check` and `leave` also: the node must not start like this
    3  the service refuses the request as it is, or does not know the call
    4  no such schedule, job, run or calendar
    5  its state does not allow it: another is pending, or it has ended, or it has another version
    6  in flight: too close to its time to say; ask again
    7  no API key, or one that does not cover the request
    8  over a quota; nothing was done
    9  no answer in time: the outcome is unknown, and the same command again settles it
"""

from typing import Final

import click

EXIT_CODES: Final = (
    "\b\nExit codes: 0 done, 2 wrong command line, 3 refused, 4 no such schedule or job, 5 its state does not\n"
    "allow it, 6 in flight, 7 API key, 8 over a quota, 9 outcome unknown (the same command again settles it)."
)
"""For the help of commands that call a service."""
NOT_STARTED: Final = (
    "\b\nExit codes: 0 done, 2 refused (each line on standard error says what to change), 1 anything else."
)
"""For the help of commands of a node."""
_EARLY_JSON: Final = "clockwork.cli.json"


def early_json() -> click.Option:
    """The flag `--json` of a group, before the name of a command: it is taken as if it stood behind it."""

    def note(context: click.Context, _param: click.Parameter, given: bool) -> None:
        if given:
            context.meta[_EARLY_JSON] = True

    return click.Option(["--json"], is_flag=True, hidden=True, expose_value=False, callback=note)


def has_early_json(context: click.Context) -> bool:
    """True if `--json` stood before the name of the command."""
    return _EARLY_JSON in context.meta
