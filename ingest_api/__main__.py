"""`python -m ingest_api`: the service alone, as `fairboard serve` starts it."""

import argparse
import sys

from ingest_api.logs import configure_logs
from ingest_api.server import serve
from warehouse.errors import FairboardError
from warehouse.privacy import keep_private
from warehouse.settings import load_settings


def main() -> int:
    """Serve as the arguments say. Returns the exit status: 0 done, 1 not done."""
    parser = argparse.ArgumentParser(prog="python -m ingest_api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        configure_logs(settings)
        serve(settings, host=arguments.host, port=arguments.port, workers=arguments.workers)
    except FairboardError as error:
        print(error, file=sys.stderr)  # noqa: T201 - what a person needs to know
        return 1
    return 0


if __name__ == "__main__":
    keep_private()
    sys.exit(main())
