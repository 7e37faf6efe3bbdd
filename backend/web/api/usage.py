"""GET /api/v2/usage: what was made and what it cost, as JSON or as a table for a spreadsheet."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from starlette.responses import Response

from backend.manage import usage
from backend.manage.usage import Asked
from backend.web.api import usage_views
from backend.web.api.usage_views import UsageView
from backend.web.calls import replies
from backend.web.calls.inputs import Query
from backend.web.calls.operation import Call, operation

_WRITTEN = r"^\d{4}-\d\d-\d\d([Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d))?$"


def _ms(text: str) -> int:
    """Return a date or a time in milliseconds since 1970 UTC. Raises ValueError."""
    if not re.fullmatch(_WRITTEN, text, re.ASCII):
        raise ValueError("must be a date such as 2026-11-21, or a time such as 2026-11-21T10:00:00Z")
    at = datetime.fromisoformat(text.upper())
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - usage_views.EPOCH) // timedelta(milliseconds=1)


def _checked(text: str) -> str:
    _ms(text)
    return text


When = Annotated[str, Field(max_length=40, pattern=_WRITTEN), AfterValidator(_checked)]
Id = Annotated[str, Field(min_length=1, max_length=64)]


class UsageQuery(Query):
    """What is added up, and how."""

    group_by: Literal["campaign", "client", "model", "provider", "key", "day"] = "campaign"
    since: When | None = Field(None, alias="from", description="the first day, in UTC")
    until: When | None = Field(None, alias="to", description="the end, in UTC: this day is not counted any more")
    client_id: Id | None = None
    campaign_id: Id | None = None
    format: Literal["json", "csv"] = "json"

    @property
    def asked(self) -> Asked:
        """The same in the terms of the report."""
        since, until = (_ms(at) if at else None for at in (self.since, self.until))
        return Asked(self.group_by, since, until, self.client_id, self.campaign_id)


@operation("GET", "/api/v2/usage", query=UsageQuery, answers={200: UsageView}, gives=["text/csv"], tags=["usage"])
async def get_usage(call: Call) -> Response:
    """Add up what was made and what it cost, by campaign, client, model, provider, key or day."""
    asked = call.query.asked
    found = await usage.report(call.ctx, call.who, asked)
    if call.query.format == "csv":
        headers = {"Content-Disposition": 'attachment; filename="usage.csv"'}
        table = await asyncio.to_thread(usage_views.table, asked, found)
        return Response(table, headers=headers, media_type="text/csv")
    return await asyncio.to_thread(lambda: replies.json_reply(usage_views.report(asked, found)))
