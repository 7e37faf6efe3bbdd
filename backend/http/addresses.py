"""Which addresses outsiders may make us talk to: pure rules, no I/O.

Names are judged when they are resolved and the socket is opened (see `backend.http.lines`), never as text:
`127.1`, `0x7f000001` and `localhost.example.com` all mean this machine to a resolver. `check_target` only says
early what the socket would refuse anyway.
"""

from __future__ import annotations

import socket
import unicodedata
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

import httpx

from backend.core.errors import BlockedAddress

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

MAX_URL_LENGTH = 2048
USUAL_PORTS = frozenset({80, 443})

# Credentials of the machine itself are served there: an allow-list never opens them.
METADATA = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # AWS, GCP, Azure, DigitalOcean; also ECS and EKS task credentials
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's wire server, a public address
        "192.0.0.192/32",  # Oracle
        "fe80::/10",
        "fd00:ec2::/32",  # AWS
        "fd20:ce::254/128",  # GCP
    )
)

# What `is_global` of Python 3.11-3.14 lets through although it leads inside or nowhere.
NOT_PUBLIC = tuple(
    ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")  # 6to4, Teredo, ...
)
PUBLIC_V6 = ip_network("2000::/3")  # so NAT64, v4-compatible, site-local and SRv6 prefixes fall away by themselves


def is_allowed(address: str, networks: Sequence[Network] = ()) -> bool:
    """Whether a resolved address may be reached: public, or in one of the operator's own networks.

    Metadata services never are, however they are written. Text that is no address is not allowed.
    """
    try:
        ip = _unmapped(ip_address(address.partition("%")[0]))
    except ValueError:
        return False
    if _is_in(ip, METADATA) or _is_in(_embedded(ip), METADATA):
        return False
    return _is_in(ip, networks) or _is_public(ip)


def is_listed(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address lies in one of the operator's own networks."""
    try:
        return _is_in(_unmapped(ip_address(address.partition("%")[0])), networks)
    except ValueError:
        return False


def check_url(url: str, longest: int = MAX_URL_LENGTH) -> None:
    """Check the syntax of a URL from outside; raise `BlockedAddress` with the rule it breaks.

    http or https, a host, no user or password, at most `longest` printable characters without spaces. Where it
    leads is checked when it is connected to.
    """
    if len(url) > longest:
        raise BlockedAddress(f"The URL is longer than {longest} characters.")
    if not url.isprintable() or " " in url or "\\" in url:
        raise BlockedAddress("The URL contains a character that is not allowed.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BlockedAddress("The URL is not valid.") from None
    if parts.scheme not in ("http", "https"):
        raise BlockedAddress("The URL must begin with https:// or http://.")
    if not parts.hostname or port == 0:
        raise BlockedAddress("The URL has no valid host.")
    if "@" in parts.netloc:
        raise BlockedAddress("The URL must not contain a user name or password.")
    if not _is_readable(url):
        raise BlockedAddress("The URL has no valid host.")


def check_target(url: str, networks: Sequence[Network] = ()) -> None:
    """Raise `BlockedAddress` for a URL that is certain never to be reached, without asking a resolver.

    What `check_url` refuses; an address, however it is spelled, that `check_addresses` would refuse; `localhost`
    and a port that no name may have, unless the operator has networks of their own.
    """
    check_url(url)
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _literal(parts.hostname or "")
    if address is not None:
        check_addresses([address], port, networks)
    elif port not in USUAL_PORTS and not networks:
        raise BlockedAddress("Only the ports 80 and 443 may be reached.")


def check_addresses(addresses: Sequence[str], port: int, networks: Sequence[Network]) -> None:
    """Raise `BlockedAddress` unless every answer of the resolver may be reached on this port."""
    if not addresses or not all(is_allowed(address, networks) for address in addresses):
        raise BlockedAddress()
    if port not in USUAL_PORTS and not all(is_listed(address, networks) for address in addresses):
        raise BlockedAddress("Only the ports 80 and 443 may be reached.")


def _is_readable(url: str) -> bool:
    """Whether the client that will call it can read it. What `xn--` stands for is looked at only when it is asked."""
    try:
        return bool(httpx.URL(url).host)
    except (httpx.InvalidURL, UnicodeError):
        return False


def _literal(host: str) -> str | None:
    """The address that a host name is, as the system's resolver would read it; None for a real name."""
    name = unicodedata.normalize("NFKC", host).replace("\u3002", ".").removesuffix(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ip_address(name.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(name))  # octal, hexadecimal, and fewer than four parts
    except (OSError, UnicodeError):
        return None


def _is_public(ip: Address) -> bool:
    if isinstance(ip, IPv6Address) and ip not in PUBLIC_V6:
        return False
    return ip.is_global and not ip.is_multicast and not _is_in(ip, NOT_PUBLIC)


def _unmapped(ip: Address) -> Address:
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def _embedded(ip: Address) -> Address:
    """The IPv4 address inside a 6to4, NAT64 or v4-compatible one; else the address itself."""
    if isinstance(ip, IPv4Address):
        return ip
    if int(ip) >> 120 == 0:  # ::/8 holds both NAT64 prefixes, with the address at the end
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.sixtofour or ip


def _is_in(ip: Address, networks: Sequence[Network]) -> bool:
    return any(ip.version == network.version and ip in network for network in networks)
