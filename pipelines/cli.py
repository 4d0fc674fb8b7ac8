"""The `fairboard` command: puts the commands together and turns errors into sentences and exit statuses.

Exit status 0 done, 1 not done (the reason on stderr), 2 wrong usage.
"""

import sys

import typer

from pipelines.commands import cases, computing, erasing, fairness, keys, loading, reading, recovery, running, verdicts
from pipelines.output import complain
from warehouse.errors import FairboardError
from warehouse.privacy import keep_private

app = typer.Typer(
    help="A game's signed event stream in; progression, fairness reports and leaderboards out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (running, keys, loading, computing, verdicts, reading, fairness, cases, erasing, recovery):
    module.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line with these arguments, by default the process's own."""
    keep_private()
    try:
        app(arguments)
    except FairboardError as error:
        complain(str(error), keep="\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
