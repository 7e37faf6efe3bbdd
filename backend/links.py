"""Signed links to media: whoever has one may fetch that file until it expires, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac

from backend.context import Context
from backend.errors import Forbidden, Gone

YEAR_S = 365 * 86_400
DAY_S = 86_400
VARIANTS = ("data", "poster", "first", "last")


def link(
    ctx: Context,
    noun: str,
    id: str,
    variant: str = "data",
    *,
    base: str | None = None,
    life_s: int = YEAR_S,
    at: int | None = None,
    file: int | None = None,
) -> str:
    """A URL that needs no key. `noun` is images, videos or assets; it lives `life_s`, at most a year.

    `file`: the place of one output among several; without it the first that is stored.

    It ends at midnight, so that it stays the same all day and caches can keep what it leads to. `at` (milliseconds):
    when its life begins, if that is not now.
    """
    whole_days = min(life_s, YEAR_S) // DAY_S * DAY_S
    now_s = (ctx.now() if at is None else at) // 1000
    expires = now_s - now_s % DAY_S + whole_days if whole_days else now_s + life_s
    path = f"frame/{variant}" if variant in ("first", "last") else variant
    which = "" if file is None else f"file={file}&"
    signature = _signature(ctx.data_key, noun, id, _of_file(variant, file), expires)
    return f"{base or ctx.settings.client_url}/api/v2/{noun}/{id}/{path}?{which}exp={expires}&sig={signature}"


def check(ctx: Context, noun: str, id: str, variant: str, exp: str, sig: str, file: str | None = None) -> None:
    """Raise Forbidden unless we made this link, Gone when it has expired."""
    if not (exp.isascii() and exp.isdigit() and len(exp) <= 12):
        raise Forbidden("This link is not valid.", code="bad_signature")
    right = _signature(ctx.data_key, noun, id, _of_file(variant, file), int(exp))
    if str(int(exp)) != exp or not hmac.compare_digest(right.encode(), sig.encode("utf-8", "replace")):
        raise Forbidden("This link is not valid.", code="bad_signature")
    if int(exp) * 1000 < ctx.now():
        raise Gone("This link has expired.", code="link_expired")


def _of_file(variant: str, file: int | str | None) -> str:
    """What is signed: the place too, as it stands in the URL."""
    return variant if file is None else f"{variant}?file={file}"


def _signature(key: bytes, noun: str, id: str, variant: str, expires: int) -> str:
    text = f"v1\nGET\n{noun}\n{id}\n{expires}\n{variant}"
    return base64.urlsafe_b64encode(hmac.digest(key, text.encode(), hashlib.sha256)[:24]).decode()
