"""The models that are offered, for programs that look before they ask."""

from __future__ import annotations

from starlette.responses import Response

from backend.context import Context
from backend.core.errors import NotFound
from backend.core.models import Model
from backend.web.calls import replies
from backend.web.calls.operation import Call, operation
from backend.web.openai import shapes
from backend.web.openai.images import TAG
from backend.web.openai.shapes import ModelList, ModelView


@operation("GET", "/v1/models", answers={200: ModelList}, tags=[TAG])
async def list_models(call: Call) -> Response:
    """List the models that are offered here."""
    return replies.json_reply({"object": "list", "data": [shapes.model(one) for one in _offered(call.ctx)]})


@operation("GET", "/v1/models/{owner}/{name}", answers={200: ModelView}, tags=[TAG])
async def retrieve_model(call: Call) -> Response:
    """Show one model."""
    name = f"{call.path['owner']}/{call.path['name']}"
    found = next((one for one in _offered(call.ctx) if one.name == name), None)
    if found is None:
        raise NotFound("There is no such model.")
    return replies.json_reply(shapes.model(found))


def _offered(ctx: Context) -> list[Model]:
    """Each name once: of those with the same name, the one that a request without a provider gets."""
    found: dict[str, Model] = {}
    for one in ctx.catalog.offered(ctx.offered):
        found.setdefault(one.name, one)
    return list(found.values())
