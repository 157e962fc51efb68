"""Which network addresses a webhook may be sent to: those of the public internet, and nobody's inner ones.

A tenant chooses the URL, and our network is not the tenant's. So a name is resolved once, each address it stands for is
checked, and the connection goes to exactly such an address: a name that means something else a moment later (DNS
rebinding) gains nothing. Hosts an operator allows by name are exempt.
"""

import ipaddress
import socket
from collections.abc import Container
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenAddress(OSError):  # noqa: N818 - says what is the case
    """A host stands for an address that webhooks may not be sent to."""


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses them if any of their addresses is not public."""

    def __init__(self, resolver: AbstractResolver, allowed_hosts: Container[str]) -> None:
        self._resolver = resolver
        self._allowed_hosts = allowed_hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if host.lower() not in self._allowed_hosts:
            for result in found:
                if not is_public(ipaddress.ip_address(result["host"].partition("%")[0])):
                    raise ForbiddenAddress(f"{host} is {result['host']}, which is not a public address")
        return found

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: Address) -> bool:
    """Is it an address of the public internet, whatever it is wrapped in?"""
    for inner in _wrapped(address):
        if not is_public(inner):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def literal(host: str) -> Address | None:
    """The address, if a URL's host is one; names are for the resolver."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _wrapped(address: Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses that packets to this one may end up at."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in inner if one is not None]
