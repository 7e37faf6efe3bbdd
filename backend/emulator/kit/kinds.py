"""The kinds of faults, and what may be said about each."""

from __future__ import annotations

from typing import Any, Literal

from backend.core.errors import SettingsError

Stage = Literal["create", "run", "webhook", "get", "list", "output"]
Arguments = dict[str, Any]

# kind -> its stage and its arguments with their defaults
KINDS: dict[str, tuple[Stage, Arguments]] = {
    "delay": ("run", {"on": "run", "delay_s": 1.0}),
    "create_429": ("create", {"retry_after": 5, "in_body": True, "in_header": False}),
    "create_401": ("create", {}),
    "create_402": ("create", {}),
    "create_422": ("create", {"detail": "The input was refused."}),
    "create_500": ("create", {}),
    "create_502": ("create", {}),
    "create_503": ("create", {}),
    "create_500_after": ("create", {"status": 500}),
    "create_hang": ("create", {"delay_s": 30.0}),
    "create_bad_json": ("create", {}),
    "reset_before": ("create", {}),
    "reset_after": ("create", {}),
    "webhook_before_answer": ("create", {}),
    "webhook_lost": ("webhook", {"events": []}),
    "webhook_duplicate": ("webhook", {"count": 2, "events": []}),
    "webhook_late": ("webhook", {"delay_s": 5.0, "events": []}),
    "webhook_out_of_order": ("webhook", {}),
    "webhook_bad_signature": ("webhook", {"events": []}),
    "unknown_status": ("run", {"status": "resuming", "forever": False}),
    "failed": ("run", {"error": "The input or output was flagged as sensitive. (E005)"}),
    "canceled": ("run", {}),
    "aborted": ("run", {}),
    "stuck": ("run", {}),
    "output_bytes": ("run", {"bytes": 16 << 20}),
    "output_other_host": ("run", {"url": "https://replicate.delivery.example/out.png"}),
    "output_list": ("run", {}),
    "output_many": ("run", {"count": 2}),
    "output_object": ("run", {"value": None}),
    "output_file": ("run", {"base64": "", "name": "out.bin", "content_type": "application/octet-stream"}),
    "output_empty": ("run", {"value": None}),
    "output_wrong_kind": ("run", {}),
    "output_data_uri": ("run", {}),
    "get_500": ("get", {}),
    "get_404": ("get", {}),
    "get_429": ("get", {"retry_after": 1, "in_body": True, "in_header": False}),
    "list_empty": ("list", {}),
    "output_404": ("output", {"status": 404}),
    "output_truncated": ("output", {"chunked": False}),
    "output_short": ("output", {}),
    "output_unframed": ("output", {}),
    "output_chunked": ("output", {}),
    "output_html": ("output", {"content_type": "text/html"}),
    "output_garbage": ("output", {}),
    "output_huge": ("output", {}),
    "output_gzip": ("output", {"bytes": 0}),
    "output_slow": ("output", {"bytes_per_s": 10_000}),
}
DELAYED = ("create", "run", "get", "list", "output")
MATCHES: Arguments = {"model": "", "prompt_contains": "", "nth": 1, "every": 1}


def check(kind: str, given: Any, known: Arguments) -> None:
    """Raises SettingsError for an unknown name, or a value of another type than the default in `known`."""
    if not isinstance(given, dict):
        raise SettingsError(f"Fault {kind}: match is an object")
    for name, value in given.items():
        if name not in known:
            raise SettingsError(f"Fault {kind}: there is no {name!r:.50}")
        if not _fits(name, value, known[name]):
            raise SettingsError(f"Fault {kind}: {name} cannot be {value!r:.50}")


def _fits(name: str, value: Any, default: Any) -> bool:
    """Whole numbers count something and start at 1, unless their default is 0."""
    if name == "on":
        return value in DELAYED
    if default is None:
        return True
    if type(default) is int:
        return type(value) is int and value >= min(1, default)
    if type(default) is float:
        return type(value) in (int, float) and value >= 0
    return isinstance(value, type(default))
