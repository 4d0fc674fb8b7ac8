"""Moto's server on a port of loopback, as S3 is: a conditional write is atomic, for which its threads take turns."""

import sys
import threading
from collections.abc import Callable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

_application = DomainDispatcherApplication(create_backend_app)
_turn = threading.Lock()


def in_turn(environment: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    with _turn:
        return list(_application(environment, start))


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), in_turn, threaded=True, request_handler=MotoRequestHandler)
