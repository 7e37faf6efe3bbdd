"""Check signatures of Standard Webhooks on the exact bytes (standardwebhooks.com, read 2026-11-21)."""

# The published library is not used for this: junk in a header makes it raise errors of five kinds, and a stranger would
# get a 500. It signs what we send, where the headers are ours.

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence

from backend.core.errors import SettingsError, Unauthorized

TOLERANCE_S = 300  # what was signed longer ago may be a copy that somebody kept
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,256}")  # printable and without the dot that separates what is signed


def read_secret(text: str) -> bytes:
    """Return the key in `whsec_<base64>`. Raises SettingsError when it has fewer than 24 bytes."""
    try:
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) < 24:
        raise SettingsError("a webhook secret is whsec_ and base64 of at least 24 bytes")
    return secret


def read_stamp(headers: Mapping[str, str], now_ms: int) -> tuple[str, int]:
    """Return the id and the time in seconds with which a webhook says it was signed, before its body is read.

    Raises Unauthorized unless there is a signature to be checked and the time is within five minutes of now.
    """
    id, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not _ID.fullmatch(id) or not re.fullmatch(r"[0-9]{1,12}", sent_at) or not headers.get("webhook-signature"):
        raise Unauthorized("The webhook is not signed.")
    if abs(int(sent_at) - now_ms / 1000) > TOLERANCE_S:
        raise Unauthorized("The webhook was signed too long ago, or in the future.")
    return id, int(sent_at)


def verify(secret: bytes, headers: Mapping[str, str], body: bytes, now_ms: int, *, others: Sequence[bytes] = ()) -> str:
    """Return the webhook's id if one of its signatures is right and it was sent within five minutes of now.

    `others` are secrets that may have signed it as well, `headers` are by lower-case name. Raises Unauthorized for
    everything else, whatever was sent.
    """
    id, sent_at = read_stamp(headers, now_ms)
    rights = [sign(secret, id, sent_at, body).encode() for secret in (secret, *others)]
    # Several signatures while a secret is being changed, never hundreds: strangers must not make us compare those.
    given = headers["webhook-signature"].encode("utf-8", "replace")[:4096].split(b" ")
    # A list, so that every pair is compared and the time taken tells a stranger nothing.
    if not any([hmac.compare_digest(right, one) for one in given for right in rights]):
        raise Unauthorized("The webhook's signature is wrong.")
    return id


def sign(secret: bytes, id: str, sent_at: int, body: bytes) -> str:
    """Return the `v1,...` signature of these bytes; `sent_at` is in seconds."""
    digest = hmac.digest(secret, f"{id}.{sent_at}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(digest).decode()
