"""The tools given to a client: over standard input and output, or as one HTTP request and its answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.tools import Tool
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import ToolAnnotations

from backend import __version__
from backend.web.mcp.access import Access
from backend.web.mcp.tools import Toolbox

STATE = "mcp_access"  # where a request carries its Access
INSTRUCTIONS = (
    "Reelhook makes images and videos with AI providers, keeps the files and counts the cost by campaign. "
    "generate_image and generate_video cost money: ask for what the person wants, once. What was accepted is never "
    "lost: it goes on when a wait is over or a connection breaks, so ask for it by its id and do not make it again. "
    "To make a video from a new image, give the image's id at once; the video waits for it."
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def over_stdio(access: Access) -> None:
    """Serve the one client at the other end of standard input and output, until it closes them."""
    await build(lambda _: access).run_stdio_async()


class OverHttp:
    """The tools for HTTP requests, each of which stands for itself: no session is kept between two of them."""

    def __init__(self, cap_bytes: int) -> None:
        self._cap_bytes = cap_bytes
        server = build(_of_request)
        server.streamable_http_app(stateless_http=True)  # makes the session manager that knows the inner server
        self._server = server.session_manager.app

    async def answer(self, access: Access, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, whose caller is known, with JSON or with a stream that ends with its result."""
        scope["state"][STATE] = access
        manager = StreamableHTTPSessionManager(self._server, stateless=True, max_request_body_size=self._cap_bytes)
        async with manager.run():  # one for each request: what is left of it ends with it, and nothing has to be closed
            await manager.handle_request(scope, receive, send)


def build(find: Callable[[Context], Access]) -> MCPServer:
    """Return a server with all tools."""
    logging.getLogger("mcp").setLevel(logging.WARNING)
    return MCPServer(
        "reelhook",
        title="Reelhook",
        version=__version__,
        instructions=INSTRUCTIONS,
        tools=_tools(Toolbox(find)),
        subscriptions=False,
        log_level="WARNING",
    )


def _tools(box: Toolbox) -> list[Tool]:
    looks = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    makes = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False)
    stops = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True)
    return [
        _tool(box.generate_image, "Generate an image", makes),
        _tool(box.generate_video, "Generate a video", makes),
        _tool(box.get_generation, "Get an image or video", looks),
        _tool(box.look, "Look at an image or video", looks),
        _tool(box.list_campaign, "List a campaign", looks),
        _tool(box.list_campaigns, "List campaigns", looks),
        _tool(box.create_campaign, "Create a campaign", makes),
        _tool(box.cancel_generation, "Cancel an image or video", stops),
    ]


def _tool(method: Callable[..., Any], title: str, annotations: ToolAnnotations) -> Tool:
    """Return a tool that refuses unknown parameters: so a model is told when it misspells one."""
    tool = Tool.from_function(method, title=title, annotations=annotations)
    arguments = tool.fn_metadata.arg_model
    # The library ignores what it does not know: a misspelled campaign_id would pay for the wrong campaign.
    arguments.model_config["extra"] = "forbid"
    arguments.model_rebuild(force=True)
    tool.parameters = arguments.model_json_schema(by_alias=True)
    return tool


def _of_request(ctx: Context) -> Access:
    request = ctx.request_context.request
    assert request is not None
    access: Access = getattr(request.state, STATE)
    return access
