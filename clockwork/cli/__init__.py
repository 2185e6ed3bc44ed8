"""`clockwork`: the command line. It talks to a service over HTTP with clockwork.client, and hands `run`, `init`,
`check` and `leave` on to `python -m clockwork`.

Exit codes tell the outcome, for scripts:

    0  done
    1  a mistake of the program's own
    2  the command line is wrong
    3  the service refuses the request as it is, or does not know the call
    4  no such schedule
    5  the schedule's state does not allow it: another is pending, or it ended already, or its version is another
    6  in flight: too close to its time to say; ask again
    7  no API key, or one that does not cover it
    8  over a quota; nothing was done
    9  no answer in time: the outcome is unknown, and the same command again settles it
"""

import sys


def main() -> int:
    """The console script."""
    try:
        from clockwork.cli.commands import clockwork
    except ModuleNotFoundError as missing:
        if missing.name not in {"click", "rich"}:
            raise
        print("clockwork: the command line needs more packages: pip install '.[cli]'", file=sys.stderr)  # noqa: T201
        return 2
    clockwork()
    return 0
