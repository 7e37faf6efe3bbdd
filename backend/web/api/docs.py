"""The API's description and a page to read and try it, all served from here: nothing is fetched elsewhere."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from backend.core.errors import NotFound
from backend.web.calls.operation import Call, operation

_STATIC = Path(__file__).parent / "static"
_FILES = {
    "start.js": ("docs.js", "text/javascript; charset=utf-8"),
    "swagger-ui-bundle.js": ("swagger/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    "swagger-ui.css": ("swagger/swagger-ui.css", "text/css; charset=utf-8"),
}
# Swagger UI writes style attributes and draws its icons from data: URIs; scripts come from us alone.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@operation("GET", "/openapi.json", answers={200: "application/json"}, auth="none", tags=["docs"])
async def show_openapi(call: Call) -> Response:
    """Give the OpenAPI 3.1 description of this service."""
    return _with_etag(call.request, call.request.app.state.openapi, "application/json", "no-cache")


@operation("GET", "/docs", answers={200: "text/html"}, auth="none", in_schema=False)
async def show_docs(call: Call) -> Response:
    """Show the description as a page."""
    page = _with_etag(call.request, _read("docs.html"), "text/html; charset=utf-8", "no-cache")
    page.headers["Content-Security-Policy"] = _PAGE_POLICY
    return page


@operation("GET", "/docs/{file}", answers={200: "text/javascript"}, auth="none", in_schema=False)
async def show_docs_file(call: Call) -> Response:
    """Give one of the page's own files: a name from a short list, never a path."""
    if call.path["file"] not in _FILES:
        raise NotFound
    name, media_type = _FILES[call.path["file"]]
    lifetime = "public, max-age=31536000, immutable" if name.startswith("swagger/") else "no-cache"
    return _with_etag(call.request, _read(name), media_type, lifetime)


@cache
def _read(name: str) -> bytes:
    """Read a file of the page once: all together they are 2 MB."""
    return (_STATIC / name).read_bytes()


def _with_etag(request: Request, content: bytes, media_type: str, cache_control: str) -> Response:
    headers = {"ETag": _etag(content), "Cache-Control": cache_control}
    # Contained, not equal: several tags may be given, and each with W/ before it.
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


@cache
def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
