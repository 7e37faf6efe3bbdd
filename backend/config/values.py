"""What the value of a setting may be. No message holds the value: it may be a secret in the wrong place."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from limits import parse_many
from pydantic import AfterValidator, SecretStr

Network = IPv4Network | IPv6Network

LONGEST = 8_192
MOST_A_PERIOD = 10_000_000
SECRET_BYTES = 24
LEAST_KEY = 32  # characters of DATA_KEY: whoever guesses it can make links to any file
# Categories of what is not seen, and what is not seen though its category promises a mark or a letter.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
_EMPTY_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe0e\ufe0f\uffa0")
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_TOKEN = re.compile(r"[!-~]+")


def clean(value: object) -> object:
    """Return the text without blanks around it.

    Raises ValueError for invisible characters, as copied from a web page.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if len(text) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    for place, char in enumerate(text, start=1):
        if char != " " and (unicodedata.category(char) in _UNSEEN or char in _EMPTY_LETTERS):
            raise ValueError(f"its character {place} cannot be seen (U+{ord(char):04X}): write it again by hand")
    return text


def is_blank(value: object) -> bool:
    """Whether a value counts as not set."""
    return isinstance(value, str) and not value.strip()


def http_url(text: str) -> str:
    """Return the URL in one form. Raises ValueError unless paths can be added to it."""
    parts = _split(text)
    usable = parts.scheme in ("http", "https") and _is_host(parts.hostname or "") and "@" not in parts.netloc
    if not usable or parts.query or parts.fragment or text[-1] in "?#":
        raise ValueError("must be http(s)://host[:port][/path], without a user, a query or a fragment")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}".rstrip("/")


def redis_url(text: str) -> str:
    """Return the text. Raises ValueError unless the Redis client can read it."""
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must be redis://, rediss:// or unix://")
    parts = _split(text)
    if parts.scheme == "unix" and not parts.path.strip("/"):
        raise ValueError("must name a socket: unix:///path")
    if parts.scheme != "unix" and not _is_host(parts.hostname or ""):
        raise ValueError("must be redis://[user:password@]host[:port][/number]")
    from redis import ConnectionPool  # takes 0.1 s, and most have none

    try:
        ConnectionPool.from_url(text)  # reads the address and connects to nothing
    except (ValueError, TypeError, AttributeError):
        raise ValueError("has an option that Redis does not know, or a value that it cannot have") from None
    return text


def database_url(text: str) -> str:
    """Return the text. Raises ValueError for what can be no file. Where it is opened its scheme is checked."""
    scheme, there, path = text.partition("://")
    if scheme != "sqlite" or not there:
        return text
    name = path.rpartition("/")[2]
    if not path.startswith("/") or name in ("", ".", "..", ":memory:") or set(path) & {"?", "#"}:
        raise ValueError("must be sqlite:///file or sqlite:////folder/file, without a query or a fragment")
    return text


def storage_url(text: str) -> str:
    """Return the text. Raises ValueError for what is no URL. Where it is opened its scheme is checked."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if port is not None or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be file:FOLDER or file:///FOLDER, without a port, a user, a query or a fragment")
    clean(unquote(parts.path, errors="surrogateescape"))
    return text


def rate(text: str) -> str:
    """Return the text. Raises ValueError unless it is a limit that lets something through."""
    try:
        found = parse_many(text)
    except ValueError:
        found = []
    if not found or not all(0 < each.amount <= MOST_A_PERIOD and 0 < each.multiples <= 1_000 for each in found):
        raise ValueError("must be a number and a period, such as 10/minute")
    return text


def networks(text: str) -> tuple[Network, ...]:
    """Return the networks, which commas separate. Raises ValueError."""
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError("must be networks parted by commas, such as 10.0.0.0/8, fd00::/8") from None


def _networks_text(text: str) -> str:
    networks(text)
    return text


def token(secret: SecretStr) -> SecretStr:
    """Return the secret. Raises ValueError unless a header can hold it."""
    if not _TOKEN.fullmatch(secret.get_secret_value()):
        raise ValueError("must be letters, digits and signs of ASCII without blanks: copy it again")
    return secret


def data_key(secret: SecretStr) -> SecretStr:
    """Return the secret. Raises ValueError for one that could be guessed."""
    if len(secret.get_secret_value()) < LEAST_KEY:
        raise ValueError(
            f"needs at least {LEAST_KEY} characters: make one with `openssl rand -hex 32`, and keep the "
            "present one as DATA_KEY_OLD"
        )
    return secret


def webhook_secret(secret: SecretStr) -> SecretStr:
    """Return the secrets as they are. Raises ValueError unless each is long enough to be one."""
    parts = [part for part in re.split(r"[\s,]+", secret.get_secret_value()) if part]
    if not parts or not all(_is_webhook_secret(part) for part in parts):
        raise ValueError(f"must be whsec_ and the base64 of at least {SECRET_BYTES} bytes")
    return secret


def _is_webhook_secret(text: str) -> bool:
    try:
        return len(base64.b64decode(text.removeprefix("whsec_"), validate=True)) >= SECRET_BYTES
    except (binascii.Error, ValueError):
        return False


def _split(text: str) -> SplitResult:
    """Split a URL. Raises ValueError when a character or the port cannot be part of one."""
    if not _URL.fullmatch(text):
        raise ValueError("holds a blank, or a character that no URL has")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("has a port that is none, or a host that is none") from None
    if port == 0:
        raise ValueError("has port 0, where nothing can be reached")
    return parts


def _is_host(host: str) -> bool:
    """Whether it is a name or an address. What looks like an address must be one."""
    # 1.2.3 or 0177.1 are no names: some resolvers read them as addresses, each in its own way.
    if ":" in host or host.rpartition(".")[2].isdigit():
        try:
            return bool(ip_address(host.split("%")[0]))
        except ValueError:
            return False
    return 0 < len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))


HttpUrl = Annotated[str, AfterValidator(http_url)]
RedisUrl = Annotated[str, AfterValidator(redis_url)]
DatabaseUrl = Annotated[str, AfterValidator(database_url)]
StorageUrl = Annotated[str, AfterValidator(storage_url)]
Rate = Annotated[str, AfterValidator(rate)]
Networks = Annotated[str, AfterValidator(_networks_text)]
DataKey = Annotated[SecretStr, AfterValidator(data_key)]
Token = Annotated[SecretStr, AfterValidator(token)]
WebhookSecret = Annotated[SecretStr, AfterValidator(webhook_secret)]
