"""Where a request comes from: the address of the peer, or the one that a trusted proxy names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.requests import Request
from starlette.types import Scope

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
LONGEST = 100  # characters of an address with everything that may stand around it


def address(request: Request, trusted: Sequence[Network]) -> str:
    """Return the address that failed attempts are counted by. IPv6 is counted by /64: one household has as many."""
    peer = _peer(request, trusted)
    return _group(peer) if peer else "unknown"


def whole_address(request: Request, trusted: Sequence[Network]) -> str | None:
    """Return the address for people to read, or None when it is not known."""
    peer = _peer(request, trusted)
    return str(peer) if peer else None


def _peer(request: Request, trusted: Sequence[Network]) -> Address | None:
    """Return the caller. X-Forwarded-For is read from the right: what stands left of our own proxies may be a lie."""
    peer = _parse(request.client.host) if request.client else None
    if peer is None:
        return None
    # Twenty hops are more than any honest chain has; a longer header costs time at every request.
    for hop in reversed(",".join(request.headers.getlist("x-forwarded-for")[:20]).split(",")[-20:]):
        if not _is_inside(peer, trusted):
            break
        closer = _parse(hop.strip())
        if closer is None:
            break
        peer = closer
    return peer


def untrusted(scope: Scope, trusted: Sequence[Network]) -> str | None:
    """Return the peer if we do not believe what it says of others, and None if it is one of our proxies."""
    client = scope.get("client")
    peer = _parse(client[0]) if client else None
    return None if peer is None or _is_inside(peer, trusted) else str(peer)


@lru_cache(maxsize=4096)  # asked three times a request, for the same few peers
def _parse(text: str) -> Address | None:
    """Read an address as proxies write it: with a port, in brackets, with a zone, or mapped into IPv6."""
    if len(text) > LONGEST:
        return None
    host = text.strip('"')
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _is_inside(found: Address, networks: Sequence[Network]) -> bool:
    return any(found.version == network.version and found in network for network in networks)


def _group(found: Address) -> str:
    return str(IPv6Network((found, 64), strict=False)) if isinstance(found, IPv6Address) else str(found)
