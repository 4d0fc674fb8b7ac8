"""Which address a request came from: `X-Forwarded-For` counts only from a trusted proxy."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from warehouse.errors import SettingsError

_MAX_HOPS = 16


class Addresses:
    """Knows the trusted proxies."""

    def __init__(self, trusted_proxies: str) -> None:
        """Read the setting.

        Raises:
            SettingsError: a part of it is no address and no network.
        """
        try:
            self._trusted: tuple[IPv4Network | IPv6Network, ...] = tuple(
                ip_network(part.strip()) for part in trusted_proxies.split(",") if part.strip()
            )
        except ValueError as error:
            raise SettingsError(f"FAIRBOARD_TRUSTED_PROXIES: {error}. Give addresses or networks like 10.0.0.0/8.") from None
        self._resolve = lru_cache(4096)(self._nearest_untrusted)

    def client(self, peer: bytes, forwarded_for: bytes | None) -> bytes:
        """The client's address: the peer's, or that of the nearest hop that is no trusted proxy of ours."""
        if not self._trusted or forwarded_for is None:
            return peer
        return self._resolve(peer.decode(), forwarded_for.decode("latin-1")).encode()

    def _nearest_untrusted(self, address: str, forwarded_for: str) -> str:
        hops = forwarded_for.split(",")[-_MAX_HOPS:]
        while hops and self._is_trusted(address):
            try:
                address = str(ip_address(hops.pop().strip()))
            except ValueError:
                break  # a trusted proxy wrote no address: that proxy is all that is known
        return address

    def _is_trusted(self, address: str) -> bool:
        parsed = ip_address(address)
        return any(parsed in network for network in self._trusted)
