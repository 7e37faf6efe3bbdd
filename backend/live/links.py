"""Signed links to media: whoever has one may fetch that file until it expires, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac

from backend.context import Context
from backend.core.errors import Forbidden, Gone
from backend.disk import data_key

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
    """Return a URL that needs no key, for `life_s` seconds and a year at most.

    `noun` is images, videos or assets. `file` is the place of one output among several; without it the link leads to
    the first one that is stored. Its life begins at `at` (milliseconds since 1970), or now.

    A life of a day or more ends at midnight UTC: so the link stays the same all day, and caches can keep what it leads
    to.
    """
    whole_days = min(life_s, YEAR_S) // DAY_S * DAY_S
    now_s = (ctx.now() if at is None else at) // 1000
    expires = now_s - now_s % DAY_S + whole_days if whole_days else now_s + life_s
    path = f"frame/{variant}" if variant in ("first", "last") else variant
    which = "" if file is None else f"file={file}&"
    signature = _signature(ctx.data_key, "v2", noun, id, _of_file(variant, file), expires)
    signed = f"{data_key.id_of(ctx.data_key)}.{signature}"
    return f"{base or ctx.settings.client_url}/api/v2/{noun}/{id}/{path}?{which}exp={expires}&sig={signed}"


def check(ctx: Context, noun: str, id: str, variant: str, exp: str, sig: str, file: str | None = None) -> None:
    """Raise Forbidden unless we made this link, and Gone when it has expired.

    The name of the key that signed it stands before the signature. Older links have no name, and any key may have
    signed those. They sign another text: so nobody can take the name off a link and pass it as an older one.
    """
    if not (exp.isascii() and exp.isdigit() and len(exp) <= 12):
        raise Forbidden("This link is not valid.", code="bad_signature")
    kid, named, signature = sig.partition(".") if "." in sig else ("", "", sig)
    every = (ctx.data_key, *ctx.old_data_keys)
    keys = data_key.of_id(every, kid) if named else every
    # The version is part of the signed text: so a signature of one version is none of the other.
    version, signed = "v2" if named else "v1", _of_file(variant, file)
    rights = [_signature(key, version, noun, id, signed, int(exp)).encode() for key in keys]
    given = signature.encode("utf-8", "replace")
    # Every one is compared, so that the time taken says nothing.
    if str(int(exp)) != exp or not any([hmac.compare_digest(right, given) for right in rights]):
        raise Forbidden("This link is not valid.", code="bad_signature")
    if int(exp) * 1000 < ctx.now():
        raise Gone("This link has expired.", code="link_expired")


def _of_file(variant: str, file: int | str | None) -> str:
    """Return the variant as it is signed: with the place of the file, as it stands in the URL."""
    return variant if file is None else f"{variant}?file={file}"


def _signature(key: bytes, version: str, noun: str, id: str, variant: str, expires: int) -> str:
    text = f"{version}\nGET\n{noun}\n{id}\n{expires}\n{variant}"
    return base64.urlsafe_b64encode(hmac.digest(key, text.encode(), hashlib.sha256)[:24]).decode()
