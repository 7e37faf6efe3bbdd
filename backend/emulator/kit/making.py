"""The model's work: from a prediction's input to a file."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image

from backend.emulator.kit.inputs import UnusableInput, pictures
from backend.emulator.kit.predictions import Output, Prediction
from backend.emulator.kit.render import films, padding
from backend.emulator.kit.render import pictures as stills
from backend.emulator.kit.render.prepared import prepared
from backend.emulator.kit.state import Emulator

Report = Callable[[float], None]
_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "video/mp4": "mp4"}


class Stopped(Exception):
    """The prediction ended while it was being rendered."""


async def make(emulator: Emulator, prediction: Prediction, report: Report) -> Output:
    """Fetches the inputs and renders; raises UnusableInput, or Stopped when it ended meanwhile."""
    found = await pictures(emulator, prediction)
    if prediction.input.get("end_image") and prediction.input.get("mode") != "pro":
        raise UnusableInput("end_image needs mode pro")
    content_type = _content_type(prediction)
    if odd := prediction.faults.get("output_file"):
        content = base64.b64decode(odd["base64"])
        return Output(odd["name"], odd["content_type"], len(content), content)
    size = prediction.faults.get("output_bytes", {}).get("bytes") or emulator.options.output_bytes
    run = asyncio.get_running_loop().run_in_executor
    if emulator.options.render == "tiny":
        return await run(emulator.renderers, _prepared, emulator.folder, content_type, size)
    path = emulator.folder / "outputs" / f"{prediction.id}.{_SUFFIXES[content_type]}"
    return await run(emulator.renderers, _render, prediction, found, path, content_type, size, report)


def more(prediction: Prediction, made: Output) -> list[Output]:
    """Further outputs: the first one with a few bytes behind its end, so that each is another file."""
    count = prediction.faults.get("output_many", {"count": 1})["count"]
    content = b"" if count == 1 else made.source if isinstance(made.source, bytes) else made.source.read_bytes()
    found = []
    for number in range(1, count):
        other = content + struct.pack(">I4sI", 12, b"free", number)
        stem, _, suffix = made.name.rpartition(".")
        found.append(Output(f"{stem}-{number}.{suffix}", made.content_type, len(other), other))
    return found


def _content_type(prediction: Prediction) -> str:
    is_film = prediction.model.kind == "video"
    if "output_wrong_kind" in prediction.faults:
        return "image/png" if is_film else "video/mp4"
    if is_film:
        return "video/mp4"
    return "image/png" if prediction.input.get("output_format") == "png" else "image/jpeg"


def _prepared(folder: Path, content_type: str, size: int | None) -> Output:
    content, name = prepared(content_type), f"out.{_SUFFIXES[content_type]}"
    if not size or size <= len(content):
        return Output(name, content_type, len(content), content)
    path = folder / f"prepared-{size}-{name}"
    if not path.exists():
        _write(path, content, content_type, size)
    return Output(name, content_type, path.stat().st_size, path)


def _render(
    prediction: Prediction,
    found: dict[str, Image.Image],
    path: Path,
    content_type: str,
    size: int | None,
    report: Report,
) -> Output:
    if content_type == "video/mp4":
        _encode_film(_film(prediction, found), path, report)
        if size:
            padding.pad(path, content_type, size)
    else:
        _write(path, stills.encode(_picture(prediction, found), content_type[-3:]), content_type, size)
    report(1.0)
    return Output(f"out{path.suffix}", content_type, path.stat().st_size, path)


def _encode_film(film: films.Film, path: Path, report: Report) -> None:
    try:
        films.encode(film, path, report)
    except Stopped:
        path.unlink(missing_ok=True)
        raise


def _write(path: Path, content: bytes, content_type: str, size: int | None) -> None:
    """Two renderers may write the same prepared file: each its own, and the last rename wins."""
    draft = path.with_name(f"{path.name}.{id(content)}-{sha256(path.name.encode()).hexdigest()[:6]}")
    draft.write_bytes(content)
    if size:
        padding.pad(draft, content_type, size)
    draft.replace(path)


def _picture(prediction: Prediction, found: dict[str, Image.Image]) -> Image.Image:
    base = found.get("image_input") or found.get("start_image")
    usual = "16:9" if prediction.model.kind == "video" else "match_input_image"
    ratio = prediction.input.get("aspect_ratio", usual)
    size = stills.SIZES.get(ratio) or stills.matching_size(base)
    return stills.picture(prediction.prompt, _seed(prediction, found), size, base)


def _film(prediction: Prediction, found: dict[str, Image.Image]) -> films.Film:
    start = found.get("start_image") or _picture(prediction, found)
    mode, duration_s = prediction.input.get("mode", "standard"), prediction.input.get("duration", 5)
    return films.Film(prediction.prompt, _seed(prediction, found), start, found.get("end_image"), mode, duration_s)


def _seed(prediction: Prediction, found: dict[str, Image.Image]) -> str:
    """The same request gives the same bytes, however its images came."""
    words: dict[str, Any] = {name: value for name, value in prediction.input.items() if name not in found}
    words.pop("image_input", None)
    seed = sha256(json.dumps([prediction.model.slug, words], sort_keys=True).encode())
    for name, image in sorted(found.items()):
        seed.update(name.encode() + image.tobytes())
    return seed.hexdigest()


def data_uri(output: Output) -> str:
    """The output inline, as synchronous answers of the real service carry it."""
    content = output.source if isinstance(output.source, bytes) else output.source.read_bytes()
    return f"data:{output.content_type};base64,{base64.b64encode(content).decode()}"
