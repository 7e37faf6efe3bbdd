"""Which hosts are this machine, by the address in a URL."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit


def is_public(url: str) -> bool:
    """Whether somebody elsewhere might reach this address: it is neither loopback nor 0.0.0.0 or ::."""
    address = _address(urlsplit(url).hostname or "")
    return not is_loopback(url) and not (address is not None and address.is_unspecified)


def is_loopback(url_or_host: str) -> bool:
    """Whether only this machine can reach an address. Names other than localhost are not looked up."""
    host = urlsplit(url_or_host).hostname if "://" in url_or_host else url_or_host
    host = (host or "").rstrip(".").lower()
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.split("%")[0])
    except ValueError:
        return None
