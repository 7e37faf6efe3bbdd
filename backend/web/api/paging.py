"""Pages of lists: where one goes on, and moments as rows have them."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

from backend.web.calls.inputs import Query


class Page(Query):
    """Where a list goes on and how much of it is wanted."""

    limit: int = Field(20, ge=1, le=100)
    cursor: Annotated[str, Field(max_length=200)] | None = None


def to_ms(at: pydantic.AwareDatetime | None) -> int | None:
    """Return a moment in milliseconds since 1970 UTC, within what an id can begin with."""
    return None if at is None else min(max(int(at.timestamp() * 1000), 0), (1 << 48) - 1)
