"""The audit log, for admins: who changed what, and when."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from starlette.responses import Response

from backend.core.formats import time
from backend.core.requests import Moment
from backend.db.audit import ACTIONS, Entry
from backend.db.audit_lists import AuditFilter
from backend.live.shown import Shown
from backend.live.views import View
from backend.steps import browse
from backend.web.api import views
from backend.web.api.paging import Page, to_ms
from backend.web.calls import replies
from backend.web.calls.operation import Call, operation

Name = Annotated[str, Field(min_length=1, max_length=64)]


def _known(action: str) -> str:
    if action not in ACTIONS:
        raise ValueError(f"must be one of {', '.join(ACTIONS)}")
    return action


Action = Annotated[str, pydantic.AfterValidator(_known), Field(json_schema_extra={"enum": list(ACTIONS)})]


class AuditQuery(Page):
    """Filters of the audit log."""

    action: Action | None = None
    client_id: Name | None = Field(None, description="whose things were changed")
    key_id: Name | None = Field(None, description="the key it was done with")
    object_id: Name | None = Field(None, description="what was changed")
    created_after: Moment | None = None
    created_before: Moment | None = None


class EntryView(View):
    """One change. `old` and `new` hold the fields that changed, and never a secret.

    `actor` is a key, somebody at the command line (`cli`), everybody in dev mode, or the service itself (`system`).
    """

    id: str
    at: str
    action: str
    actor: Literal["key", "dev", "cli", "system"]
    actor_name: str | None
    key_id: str | None
    key_prefix: str | None
    address: str | None
    request_id: str | None
    object_type: str
    object_id: str | None
    client_id: str | None
    old: dict[str, Any] | None
    new: dict[str, Any] | None


class AuditList(View):
    """One page, newest first."""

    items: list[EntryView]
    next_cursor: str | None


@operation("GET", "/api/v2/audit", query=AuditQuery, answers={200: AuditList}, auth="admin", tags=["audit"])
async def list_audit(call: Call) -> Response:
    """List who changed what, newest first."""
    query: AuditQuery = call.query
    wanted = AuditFilter(
        action=query.action,
        client_id=query.client_id,
        key_id=query.key_id,
        object_id=query.object_id,
        created_after=to_ms(query.created_after),
        created_before=to_ms(query.created_before),
    )
    rows, cursor = await browse.audit_page(call.ctx, wanted, query.cursor, query.limit)
    return replies.json_reply(views.page([_shown(row) for row in rows], cursor))


_SAME = [name for name in EntryView.model_fields if name not in ("at", "old", "new")]


def _shown(row: Entry) -> Shown:
    changed = {"old": row.old_values, "new": row.new_values}
    return {"at": time(row.at), **{name: getattr(row, name) for name in _SAME}, **changed}
