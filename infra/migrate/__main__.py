"""`python -m infra.migrate first | crontab | quartz …`: from other schedulers to this one (infra/migration.md).

Exit codes: 0 all is converted, or imported; 2 refused, or no answer; 3 a person has to look at some of it, as reported.
"""

import argparse
import sys
from collections.abc import Sequence

from infra.migrate import first_command, jobs_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    summary, _, exit_codes = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m infra.migrate", description=summary, epilog=exit_codes)
    sources = parser.add_subparsers(required=True, metavar="SOURCE")
    first_command.add_parser(sources)
    jobs_command.add_parsers(sources)
    chosen = parser.parse_args(arguments)
    exit_code: int = chosen.run(chosen)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
