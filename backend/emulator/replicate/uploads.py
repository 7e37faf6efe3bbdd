"""`/v1/files`: multipart in, file objects out."""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from backend.emulator.kit.files import MAX_BYTES, File
from backend.emulator.kit.state import Emulator
from backend.emulator.replicate import orders, problems


async def create_file(request: Request) -> Response:
    emulator: Emulator = request.app.state.emulator
    emulator.ledger.files += 1
    if int(request.headers.get("content-length") or 0) > MAX_BYTES + (1 << 20):
        raise _too_large()
    async with request.form(max_files=2, max_fields=10) as form:
        content = form.get("content")
        if not isinstance(content, UploadFile):
            raise problems.invalid("content", "required", "content is required")
        if (content.size or 0) > MAX_BYTES:
            raise _too_large()
        name, content_type = (
            _text(form, "filename") or content.filename or "file",
            _content_type(form, content),
        )
        file = await emulator.files.keep(content.file, name[:255], content_type, await _metadata(form))
    return JSONResponse(file.as_json(orders.origin(request)), 201)


async def list_files(request: Request) -> Response:
    emulator: Emulator = request.app.state.emulator
    shown = [file.as_json(orders.origin(request)) for file in reversed(emulator.files.by_id.values())]
    return JSONResponse({"next": None, "previous": None, "results": shown})


async def get_file(request: Request) -> Response:
    return JSONResponse(_find(request).as_json(orders.origin(request)))


async def delete_file(request: Request) -> Response:
    await request.app.state.emulator.files.delete(_find(request))
    return Response(status_code=204)


async def download_file(request: Request) -> Response:
    file = _find(request)
    return FileResponse(file.path, media_type=file.content_type)


def _find(request: Request) -> File:
    file: File | None = request.app.state.emulator.files.find(request.path_params["id"])
    if file is None:
        raise problems.not_found("File")
    return file


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def _content_type(form: FormData, content: UploadFile) -> str:
    return _text(form, "type") or content.content_type or "application/octet-stream"


async def _metadata(form: FormData) -> dict[str, Any]:
    """JSON text, as a field or as a part of its own."""
    given = form.get("metadata")
    try:
        text = await given.read() if isinstance(given, UploadFile) else given or "{}"
        metadata = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise problems.invalid("metadata", "invalid_type", "metadata is not valid JSON") from wrong
    if not isinstance(metadata, dict):
        raise problems.invalid("metadata", "invalid_type", "Invalid type. Expected: object")
    return metadata


def _too_large() -> problems.Refusal:
    return problems.Refusal(413, "Files must be less than 100MB in size")
