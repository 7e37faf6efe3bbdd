"""The kinds of faults, in terms of what the network or a provider does, and what may be said about each."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from backend.core.errors import SettingsError

Stage = Literal["create", "run", "webhook", "get", "list", "output"]
Arguments = dict[str, Any]


class Kind(NamedTuple):
    """The stage at which a fault strikes, its arguments with their defaults, and what it does."""

    stage: Stage
    arguments: Arguments
    meaning: str


_429 = {"in_body": True, "in_header": False}

KINDS: dict[str, Kind] = {
    "delay": Kind("run", {"on": "run", "delay_s": 1.0}, "the answer comes late; a run starts late"),
    "create_429": Kind("create", {"retry_after": 5, **_429}, "too many requests; nothing is taken"),
    "create_401": Kind("create", {}, "the key is refused"),
    "create_402": Kind("create", {}, "there is no credit left"),
    "create_422": Kind("create", {"detail": "The input was refused."}, "the input is refused"),
    "create_500": Kind("create", {}, "an error; nothing is taken"),
    "create_502": Kind("create", {}, "an error; nothing is taken"),
    "create_503": Kind("create", {}, "an error; nothing is taken"),
    "create_500_after": Kind("create", {"status": 500}, "an error, although the run was taken"),
    "create_hang": Kind("create", {"delay_s": 30.0}, "no answer, although the run was taken"),
    "create_bad_json": Kind("create", {}, "half of the answer's JSON; the run was taken"),
    "reset_before": Kind("create", {}, "the connection is reset; nothing is taken"),
    "reset_after": Kind("create", {}, "the connection is reset; the run was taken"),
    "connection_refused": Kind("create", {"down_s": 1.0}, "nothing is taken, and nobody can connect for a while"),
    "webhook_before_answer": Kind("create", {}, "the run's last webhook is sent before the create is answered"),
    "webhook_lost": Kind("webhook", {"events": []}, "a webhook is not sent"),
    "webhook_duplicate": Kind("webhook", {"count": 2, "events": []}, "a webhook is sent several times"),
    "webhook_late": Kind("webhook", {"delay_s": 5.0, "events": []}, "a webhook is sent late"),
    "webhook_out_of_order": Kind("webhook", {}, "the first webhook is sent after the last one"),
    "webhook_bad_signature": Kind("webhook", {"events": []}, "the signature is that of other bytes"),
    "unknown_status": Kind("run", {"status": "resuming", "forever": False}, "a status that no documentation names"),
    "failed": Kind(
        "run", {"error": "The input or output was flagged as sensitive. (E005)"}, "the run fails with this text"
    ),
    "canceled": Kind("run", {}, "the provider cancels the run by itself"),
    "aborted": Kind("run", {}, "the run is ended before it starts"),
    "stuck": Kind("run", {}, "the run never ends"),
    "output_bytes": Kind("run", {"bytes": 16 << 20}, "a file of this size"),
    "output_other_host": Kind(
        "run", {"url": "https://replicate.delivery.example/out.png"}, "a URL that is not the provider's"
    ),
    "output_list": Kind("run", {}, "a list, where one URL is usual"),
    "output_many": Kind("run", {"count": 2}, "several files"),
    "output_object": Kind("run", {"value": None}, "any JSON around the URLs"),
    "output_file": Kind(
        "run",
        {"base64": "", "name": "out.bin", "content_type": "application/octet-stream"},
        "a file of these bytes",
    ),
    "output_empty": Kind("run", {"value": None}, "the run succeeds and names no file"),
    "output_wrong_kind": Kind("run", {}, "a picture for a video, or the other way round"),
    "output_data_uri": Kind("run", {}, "the file as a data URI"),
    "get_500": Kind("get", {}, "an error instead of the run"),
    "get_404": Kind("get", {}, "the run is said not to exist"),
    "get_429": Kind("get", {"retry_after": 1, **_429}, "too many questions"),
    "get_reset": Kind("get", {}, "the connection is reset"),
    "get_bad_json": Kind("get", {}, "half of the answer's JSON"),
    "list_empty": Kind("list", {}, "the list shows nothing"),
    "list_lagging": Kind("list", {"by_s": 5.0}, "the list does not show the newest runs yet"),
    "output_404": Kind("output", {"status": 404}, "the file is gone"),
    "output_truncated": Kind("output", {"chunked": False}, "the connection ends before the promised length"),
    "output_short": Kind("output", {}, "half of the file, and nothing says so"),
    "output_unframed": Kind("output", {}, "the whole file, which ends where the connection ends"),
    "output_chunked": Kind("output", {}, "the whole file in chunks, without a length"),
    "output_html": Kind("output", {"content_type": "text/html"}, "a web page instead of the file"),
    "output_garbage": Kind("output", {}, "other bytes of the same length"),
    "output_huge": Kind("output", {}, "bytes without an end"),
    "output_gzip": Kind("output", {"bytes": 0}, "the file packed, or this many zeros: a bomb"),
    "output_slow": Kind("output", {"bytes_per_s": 10_000}, "the file in drops"),
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
