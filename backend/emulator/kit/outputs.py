"""Output files: served until they expire, whole or as bad as a fault wants."""

from __future__ import annotations

from hashlib import sha256

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from backend.emulator.kit.faults import pause
from backend.emulator.kit.runs import Output, Run
from backend.emulator.kit.spoiling import other_bytes, spoil
from backend.emulator.kit.state import Emulator, emulator_of


class Streamed(FileResponse):
    chunk_size = 1 << 20  # 500 MB in 500 reads; 64 kB would be 8,000 hops to a thread


async def serve_output(request: Request) -> Response:
    """The file of `/output/{id}/{name}`."""
    emulator = emulator_of(request)
    run = emulator.runs.by_id.get(request.path_params["id"])
    return await serve(emulator, run, run.file(request.path_params["name"]) if run else None)


async def serve(emulator: Emulator, run: Run | None, output: Output | None) -> Response:
    """Answers with the file, or with what a fault makes of it; 404 when there is none."""
    emulator.ledger.downloads += 1
    if run is None or output is None:
        return Response("Not found", 404)
    struck = emulator.faults.strike("output", run.model, run.prompt)
    await pause(struck)
    struck.pop("delay", None)
    for kind, arguments in struck.items():
        if (handed := await other_bytes(kind, arguments, output)) is not None:
            emulator.ledger.handed.setdefault(run.id, []).append(sha256(handed).hexdigest())
        return await spoil(kind, arguments, output)
    if isinstance(output.source, bytes):
        return Response(output.source, media_type=output.content_type)
    return Streamed(output.source, media_type=output.content_type)
