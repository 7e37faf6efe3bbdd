"""`/v1/files`: multipart in, file objects out."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from backend.emulator.kit.refusals import Refusal, invalid, not_found
from backend.emulator.kit.runs import stamp
from backend.emulator.kit.state import emulator_of, origin
from backend.emulator.kit.uploads import Upload

MAX_BYTES = 100 << 20


def show(upload: Upload, at: str) -> dict[str, Any]:
    """The file object. `name` and `etag` are not specified; the real service sends them and its SDK needs them.

    It expires after a day: the documentation says one hour, answers of the real service one day.
    """
    return {
        "id": upload.id,
        "name": upload.name,
        "content_type": upload.content_type,
        "size": upload.size,
        "etag": upload.md5,
        "checksums": {"sha256": upload.sha256, "md5": upload.md5},
        "metadata": upload.metadata,
        "created_at": stamp(upload.created_at),
        "expires_at": stamp(upload.expires_at),
        "urls": {"get": f"{at}/v1/files/{upload.id}"},
    }


def id_of(url: str, at: str) -> str | None:
    """The upload that a reference of our own names."""
    match urlsplit(url).path.strip("/").split("/"):
        case ["v1", "files", id, *_] if urlsplit(url).netloc == urlsplit(at).netloc:
            return id
    return None


async def create_file(request: Request) -> Response:
    emulator = emulator_of(request)
    emulator.ledger.files += 1
    if int(request.headers.get("content-length") or 0) > MAX_BYTES + (1 << 20):
        raise _too_large()
    async with request.form(max_files=2, max_fields=10) as form:
        content = form.get("content")
        if not isinstance(content, UploadFile):
            raise invalid("content", "required", "content is required")
        if (content.size or 0) > MAX_BYTES:
            raise _too_large()
        name, content_type = (
            _text(form, "filename") or content.filename or "file",
            _content_type(form, content),
        )
        file = await emulator.uploads.keep(content.file, name[:255], content_type, await _metadata(form))
    return JSONResponse(show(file, origin(request)), 201)


async def list_files(request: Request) -> Response:
    emulator = emulator_of(request)
    shown = [show(file, origin(request)) for file in reversed(emulator.uploads.by_id.values())]
    return JSONResponse({"next": None, "previous": None, "results": shown})


async def get_file(request: Request) -> Response:
    return JSONResponse(show(_find(request), origin(request)))


async def delete_file(request: Request) -> Response:
    await emulator_of(request).uploads.delete(_find(request))
    return Response(status_code=204)


async def download_file(request: Request) -> Response:
    file = _find(request)
    return FileResponse(file.path, media_type=file.content_type)


def _find(request: Request) -> Upload:
    file = emulator_of(request).uploads.find(request.path_params["id"])
    if file is None:
        raise not_found("File")
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
        raise invalid("metadata", "invalid_type", "metadata is not valid JSON") from wrong
    if not isinstance(metadata, dict):
        raise invalid("metadata", "invalid_type", "Invalid type. Expected: object")
    return metadata


def _too_large() -> Refusal:
    return Refusal(413, "other", "Files must be less than 100MB in size")
