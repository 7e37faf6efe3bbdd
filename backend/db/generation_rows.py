"""How a generation is written as a row, and read from one."""

from __future__ import annotations

import json
from typing import Any

from backend.core.generation import Failure, Generation
from backend.db.connection import Row

COLUMNS = (
    "id, kind, status, client_id, campaign_id, key_id, batch_id, retry_of, provider, model, prompt, source, params, "
    "metadata, webhook_url, nonce, provider_id, attempts, polls, progress, outputs, outputs_expire_at, "
    "cancel_requested_at, cancel_sent_at, possibly_charged, file_name, poster_name, content_type, bytes, sha256, "
    "width, height, duration_s, cost_estimated_micros, cost_actual_micros, error_code, error_message, error_retryable, "
    "created_at, claimed_at, submitted_at, deadline_at, finished_at, due_at, lease_owner, held_at, "
    "began_at, bill_told, media_state, media_why, more_files, provider_ref, account"
)

_JSON = ("source", "params", "metadata", "outputs")

NAMES = tuple(COLUMNS.split(", "))

_EMPTY: dict[str, type[dict[str, Any]] | type[list[Any]]] = {"{}": dict, "[]": list}  # most are: not worth a parser


def read(row: Row) -> Generation:
    """Return a row as the object that everybody else knows."""
    fields = dict(zip(NAMES, row, strict=True))  # every query here selects COLUMNS, in this order
    code, message, retryable = (fields.pop(f"error_{name}") for name in ("code", "message", "retryable"))
    for name in _JSON:
        fields[name] = _EMPTY[fields[name]]() if fields[name] in _EMPTY else json.loads(fields[name])
    for name in ("more_files", "provider_ref"):
        fields[name] = json.loads(fields[name]) if fields[name] else None
    fields["possibly_charged"] = bool(fields["possibly_charged"])
    return Generation(**fields, failure=Failure(code, message, bool(retryable)) if code else None)


def written(value: Any) -> Any:
    """Return a value as its column holds it: JSON as text, flags as numbers."""
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return int(value) if isinstance(value, bool) else value
