"""Request bodies: JSON objects, read as strictly as providers do."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from backend.emulator.kit.refusals import bad_json, invalid


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; raises a Refusal for anything else."""
    try:
        body = json.loads(await request.body(), parse_constant=_refuse_constant)
        json.dumps(body, ensure_ascii=False).encode()  # half a surrogate pair cannot be sent back
    except (ValueError, RecursionError) as wrong:
        raise bad_json() from wrong
    if not isinstance(body, dict):
        raise invalid("", "invalid_type", "Invalid type. Expected: object")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
