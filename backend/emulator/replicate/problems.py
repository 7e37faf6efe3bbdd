"""Refusals in the shape and words of Replicate: RFC 7807 bodies, `application/problem+json`."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from backend.emulator.kit.refusals import Refusal

_TITLES = {
    "unauthenticated": "Unauthenticated",
    "no_credit": "Insufficient credit",
    "bad_json": "Invalid JSON",
    "invalid": "Input validation failed",
}
_DETAILS = {
    "unauthenticated": "You did not pass a valid authentication token",
    "no_credit": "You have insufficient credit to run this model. Add credit, then try again.",
}


class InvalidVersion(Refusal):
    """The body names a version that nobody knows."""

    def __init__(self) -> None:
        super().__init__(
            422, "other", "The specified version does not exist (or perhaps you don't have permission to use it?)"
        )


def refuse(refusal: Refusal) -> Response:
    detail = _DETAILS.get(refusal.reason, refusal.message)
    body = {"detail": detail, "status": refusal.status, **_members(refusal)}
    return JSONResponse(body, refusal.status, headers=refusal.headers, media_type="application/problem+json")


def _members(refusal: Refusal) -> dict[str, Any]:
    """What the body says besides the detail and the status."""
    members: dict[str, Any] = {"title": _TITLES[refusal.reason]} if refusal.reason in _TITLES else {}
    if isinstance(refusal, InvalidVersion):
        members["title"] = "Invalid version or not permitted"
    if refusal.fields:
        members["invalid_fields"] = [
            {"type": field.kind, "field": field.name, "description": field.description} for field in refusal.fields
        ]
    if refusal.retry_after_s is not None and refusal.in_body:
        # The real service puts the wait into the body and the sentence; a header was never seen there.
        members["detail"] = f"{refusal.message} Your rate limit resets in ~{refusal.retry_after_s}s."
        members["retry_after"] = refusal.retry_after_s
    return members
