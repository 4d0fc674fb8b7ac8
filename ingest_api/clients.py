"""Which address a request came from: `X-Forwarded-For` counts only from a trusted proxy.

An address stands for whoever can send from it: of IPv6 the first 64 bits, which is what one customer gets; an IPv4 address that
comes as IPv6 is itself. What does not belong here: counting (`gate.py`, `connection_limit.py`).
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from warehouse.errors import SettingsError

_MAX_HOPS = 16
_UNKNOWN = b"unknown"  # who came through a trusted proxy that wrote no address: not the proxy
_WITH_PORT = re.compile(r"^(?:(\d+\.\d+\.\d+\.\d+):\d+|\[([^\]]+)\](?::\d+)?)$")  # as some proxies write it
_ONE_CUSTOMER_BITS = 64

Networks = tuple[IPv4Network | IPv6Network, ...]


def networks(setting: str, value: str) -> Networks:
    """The addresses and networks, comma-separated, of a setting.

    Raises:
        SettingsError: a part of it is neither.
    """
    try:
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError as error:
        raise SettingsError(f"{setting}: {error}. Give addresses or networks like 10.0.0.0/8.") from None


def is_in(address: bytes, those: Networks) -> bool:
    """Whether one of the networks holds the address; False where it is none, as a Unix socket's."""
    try:
        parsed = _parse(address.decode("latin-1"))
    except ValueError:
        return False
    return any(parsed in network for network in those)


class Addresses:
    """Knows the trusted proxies."""

    def __init__(self, trusted_proxies: str) -> None:
        """Read the setting.

        Raises:
            SettingsError: a part of it is no address and no network.
        """
        self._trusted = networks("FAIRBOARD_TRUSTED_PROXIES", trusted_proxies)
        self._resolve = lru_cache(4096)(self._nearest)
        self._customer = lru_cache(4096)(_customer)

    def client(self, peer: bytes, forwarded_for: bytes | None) -> bytes:
        """Who counts: the customer of `address`."""
        return self._customer(self.address(peer, forwarded_for))

    def address(self, peer: bytes, forwarded_for: bytes | None) -> bytes:
        """The peer, or the nearest hop that is no trusted proxy of ours."""
        return self._resolve(peer, forwarded_for if self._trusted else None)

    def is_trusted(self, peer: bytes) -> bool:
        """Whether that is one of our proxies."""
        return is_in(peer, self._trusted)

    def _nearest(self, peer: bytes, forwarded_for: bytes | None) -> bytes:
        hops = [] if forwarded_for is None else forwarded_for.decode("latin-1").split(",")[-_MAX_HOPS:]
        address = peer
        while hops and is_in(address, self._trusted):
            try:
                address = str(_parse(_WITH_PORT.sub(r"\1\2", hops.pop().strip()))).encode()
            except ValueError:
                return _UNKNOWN
        return address


def _customer(address: bytes) -> bytes:
    try:
        parsed = _parse(address.decode("latin-1"))
    except ValueError:
        return address  # a Unix socket's
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, _ONE_CUSTOMER_BITS), strict=False)).encode()
    return str(parsed).encode()


def _parse(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address
