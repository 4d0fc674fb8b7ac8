"""How many connections a worker holds: in all, below its limit of open files, and of one address.

What does not belong here: which address counts for a request (`clients.py`).
"""

import resource
from collections import Counter
from typing import Final

from ingest_api.clients import Addresses

_OTHER_FILES: Final = 256  # the journal, Redis, the lake's readers, logs


class ConnectionLimit:
    """Counts open connections. Trusted proxies hold as many as there is room for: they bring everybody's."""

    def __init__(self, of_address: int, addresses: Addresses) -> None:
        self._in_all = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES, 1)
        self._of_address = of_address
        self._addresses = addresses
        self._open: Counter[bytes] = Counter()
        self.open = self.refused = 0

    def admit(self, peer: bytes) -> bytes | None:
        """Count a new connection of that address. Returns the customer whose it is; None where it is refused."""
        name = self._addresses.client(peer, None)
        full = self._open[name] >= self._of_address and not self._addresses.is_trusted(peer)
        if full or self.open >= self._in_all:
            self.refused += 1
            return None
        self._open[name] += 1
        self.open += 1
        return name

    def leave(self, customer: bytes) -> None:
        """A connection of theirs has ended."""
        self._open[customer] -= 1
        self.open -= 1
        if not self._open[customer]:
            del self._open[customer]
