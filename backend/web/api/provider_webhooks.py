"""Where providers report: the exact bytes are checked, kept, and answered at once."""

from __future__ import annotations

from starlette.responses import Response

from backend.steps import receive
from backend.web.calls import bodies, replies
from backend.web.calls.operation import Call, operation

CAP_BYTES = 10 << 20  # a prediction with long logs has been seen to exceed 1 MB


@operation(
    "POST",
    "/webhooks/{provider}/{generation_id}/{nonce}",
    answers={200: None},
    auth="none",
    tags=["webhooks"],
    errors=[400, 401, 404, 413, 503],
)
async def receive_webhook(call: Call) -> Response:
    """Take a provider's webhook: only what it signed is believed, and only once."""
    headers = {name.lower(): value for name, value in call.request.headers.items()}
    path = call.path
    receive.expect(call.ctx, path["provider"], headers)
    async with bodies.of_stranger(call.request, cap_bytes=CAP_BYTES) as body:
        fresh = await receive.keep(call.ctx, path["provider"], path["generation_id"], path["nonce"], headers, body)
    return replies.json_reply({"received": True, "repeated": not fresh})
