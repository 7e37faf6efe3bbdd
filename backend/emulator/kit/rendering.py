"""A run's work: from what is wanted to the bytes of a file."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from PIL import Image

from backend.emulator.kit.inputs import UnusableInput, pictures
from backend.emulator.kit.orders import Work
from backend.emulator.kit.progress import Stopped
from backend.emulator.kit.render import films, padding
from backend.emulator.kit.render import pictures as stills
from backend.emulator.kit.render.prepared import prepared
from backend.emulator.kit.runs import Output, Run
from backend.emulator.kit.state import Emulator

Report = Callable[[float], None]
Found = dict[str, Image.Image]
_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "video/mp4": "mp4"}


async def render(emulator: Emulator, run: Run, report: Report) -> Output:
    """Fetches the references and renders; raises UnusableInput, or Stopped when the run ended meanwhile."""
    found = await pictures(emulator, run)
    if run.work.fails_with:
        raise UnusableInput(run.work.fails_with)
    if odd := run.faults.get("output_file"):
        content = base64.b64decode(odd["base64"])
        return Output(odd["name"], odd["content_type"], len(content), content)
    content_type = _content_type(run)
    size = run.faults.get("output_bytes", {}).get("bytes") or emulator.options.output_bytes
    in_thread = asyncio.get_running_loop().run_in_executor
    if emulator.options.render == "tiny":
        return await in_thread(emulator.renderers, _prepared, emulator.folder, content_type, size)
    path = emulator.folder / "outputs" / f"{run.id}.{_SUFFIXES[content_type]}"
    await in_thread(emulator.renderers, _render, run.work, found, path, content_type, report)
    if size:
        await in_thread(emulator.renderers, padding.pad, path, content_type, size)
    report(1.0)
    return Output(f"out{path.suffix}", content_type, path.stat().st_size, path)


def further(run: Run, made: Output) -> list[Output]:
    """Further outputs: the first one with a few bytes behind its end, so that each is another file."""
    count = run.faults.get("output_many", {"count": run.work.count})["count"]
    content = made.read() if count > 1 else b""
    found = []
    for number in range(1, count):
        other = content + struct.pack(">I4sI", 12, b"free", number)
        stem, _, suffix = made.name.rpartition(".")
        found.append(Output(f"{stem}-{number}.{suffix}", made.content_type, len(other), other))
    return found


def _content_type(run: Run) -> str:
    if "output_wrong_kind" in run.faults:
        return "image/png" if run.work.is_film else "video/mp4"
    return run.work.content_type


def _prepared(folder: Path, content_type: str, size: int | None) -> Output:
    content, name = prepared(content_type), f"out.{_SUFFIXES[content_type]}"
    if not size or size <= len(content):
        return Output(name, content_type, len(content), content)
    path = folder / f"prepared-{size}-{name}"
    if not path.exists():
        _write_padded(path, content, content_type, size)
    return Output(name, content_type, path.stat().st_size, path)


def _write_padded(path: Path, content: bytes, content_type: str, size: int) -> None:
    """Makes a prepared file. Two renderers may make the same one: each writes its own, and the last rename wins."""
    draft = path.with_name(f"{path.name}.{id(content)}-{sha256(path.name.encode()).hexdigest()[:6]}")
    draft.write_bytes(content)
    padding.pad(draft, content_type, size)
    draft.replace(path)


def _render(work: Work, found: Found, path: Path, content_type: str, report: Report) -> None:
    if content_type != "video/mp4":
        path.write_bytes(stills.encode(_picture(work, found), content_type[-3:]))
        return
    try:
        films.encode(_film(work, found), path, report)
    except Stopped:
        path.unlink(missing_ok=True)
        raise


def _picture(work: Work, found: Found) -> Image.Image:
    base = found.get(work.start or "")
    size = stills.SIZES.get(work.ratio or "") or stills.matching_size(base)
    return stills.picture(work.prompt, _seed(work, found), size, base)


def _film(work: Work, found: Found) -> films.Film:
    start = found.get(work.start or "") or _picture(work, found)
    end = found.get(work.end or "")
    return films.Film(work.prompt, _seed(work, found), start, end, work.mode, work.duration_s)


def _seed(work: Work, found: Found) -> str:
    """Returns the seed of a request: the same request gives the same bytes, however its pictures came."""
    seed = sha256(json.dumps(work.seed, sort_keys=True).encode())
    for name, image in sorted(found.items()):
        seed.update(name.encode() + image.tobytes())
    return seed.hexdigest()


def data_uri(output: Output) -> str:
    """Returns the output as a data URI, as answers carry it that come with the result; blocks."""
    return f"data:{output.content_type};base64,{base64.b64encode(output.read()).decode()}"
