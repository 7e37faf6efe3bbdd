"""A prediction's life after it was created.

starting ──► processing ──► succeeded | failed | canceled
   └───────► aborted | canceled
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend.emulator.kit.inputs import UnusableInput
from backend.emulator.kit.ledger import End
from backend.emulator.kit.making import Stopped, data_uri, make, more
from backend.emulator.kit.predictions import PROCESSING, Output, Prediction
from backend.emulator.kit.state import Emulator
from backend.emulator.kit.webhooks import announce

LOGS_EVERY_S = 0.5  # the real service sends log webhooks at most this often


def start(emulator: Emulator, prediction: Prediction) -> None:
    """Runs it beside the requests; a failure of our own ends it as one of the real service would."""

    def settle(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception():
            prediction.error = "Prediction interrupted; please retry (code: PA)"
            end(emulator, prediction, "failed")

    emulator.spawn(_run(emulator, prediction)).add_done_callback(settle)


async def _run(emulator: Emulator, prediction: Prediction) -> None:
    """To its end; a cancel, a deadline or the emulator's closing stops it anywhere."""
    try:
        await _start(emulator, prediction)
        made = await _work(emulator, prediction)
        await _deliver(emulator, prediction, made)
    except Stopped:
        pass  # whoever ended it has announced it
    except UnusableInput as wrong:
        prediction.error = wrong.message
        end(emulator, prediction, "failed")


def end(emulator: Emulator, prediction: Prediction, status: str) -> None:
    """Gives it a final status, unless it has one, and announces that."""
    if prediction.finish(status):
        files = [file.sha256 for file in prediction.files]
        first = files[0] if files else None
        emulator.ledger.ends.append(End(prediction.id, status, first, prediction.started_at is not None, files))
        announce(emulator, prediction, "completed")
        asyncio.get_running_loop().call_later(emulator.options.expiry_s, expire, emulator, prediction)


def expire(emulator: Emulator, prediction: Prediction) -> None:
    """The output is deleted and the prediction forgets its data."""
    file = prediction.file
    prediction.remove_data()
    if file and isinstance(file.source, Path) and file.source.parent == emulator.folder / "outputs":
        file.source.unlink(missing_ok=True)  # a prepared one belongs to all


async def guard_deadline(emulator: Emulator, prediction: Prediction, life_s: float) -> None:
    """Ends the prediction after its life: `aborted` when it has not started, else `canceled`."""
    if not await lasts(prediction, life_s):
        end(emulator, prediction, "canceled" if prediction.started_at else "aborted")


async def lasts(prediction: Prediction, seconds: float) -> bool:
    """Waits; True as soon as the prediction has ended."""
    if seconds <= 0:
        return prediction.is_final
    try:
        async with asyncio.timeout(seconds):
            await prediction.ended.wait()
    except TimeoutError:
        pass
    return prediction.is_final


async def _start(emulator: Emulator, prediction: Prediction) -> None:
    delay = prediction.faults.get("delay", {"delay_s": 0})
    if await lasts(prediction, delay["delay_s"]):
        raise Stopped
    if "aborted" in prediction.faults:
        end(emulator, prediction, "aborted")
        raise Stopped
    prediction.status, prediction.started_at = PROCESSING, datetime.now(UTC)
    if unknown := prediction.faults.get("unknown_status"):
        prediction.status = unknown["status"]
    announce(emulator, prediction, "start")


async def _work(emulator: Emulator, prediction: Prediction) -> Output:
    """Renders, and takes at least the time the model is set to take."""
    least_s = emulator.options.video_s if prediction.model.kind == "video" else emulator.options.image_s
    progress = Progress(emulator, prediction, least_s)
    ticking = emulator.spawn(progress.tick()) if least_s else None
    try:
        made = await make(emulator, prediction, progress.report)
        if await lasts(prediction, progress.left_s()):
            raise Stopped
    finally:
        if ticking:
            ticking.cancel()
    progress.write(1.0)
    await _fail_on_purpose(emulator, prediction)
    return made


async def _fail_on_purpose(emulator: Emulator, prediction: Prediction) -> None:
    faults = prediction.faults
    if "stuck" in faults or faults.get("unknown_status", {}).get("forever"):
        await prediction.ended.wait()
        raise Stopped
    for status in ("failed", "canceled"):
        if status in faults:
            prediction.error = faults[status].get("error")
            end(emulator, prediction, status)
            raise Stopped


async def _deliver(emulator: Emulator, prediction: Prediction, made: Output) -> None:
    prediction.file, prediction.more = made, more(prediction, made)
    shown = await asyncio.to_thread(_shown, prediction) if prediction.faults else prediction.file_url
    if isinstance(made.source, Path):
        await asyncio.to_thread(lambda: made.sha256)
    if prediction.is_final:
        return
    prediction.output = shown
    announce(emulator, prediction, "output")
    end(emulator, prediction, "succeeded")


def _shown(prediction: Prediction) -> Any:
    """What stands in `output`, bent by the faults."""
    faults, file = prediction.faults, prediction.file
    if "output_other_host" in faults:
        return faults["output_other_host"]["url"]
    if "output_empty" in faults:
        return faults["output_empty"]["value"]
    if "output_data_uri" in faults and file:
        return data_uri(file)
    if "output_object" in faults:
        wanted = faults["output_object"]["value"]
        return _filled({"file": "$0", "seed": "4711"} if wanted is None else wanted, prediction.file_urls)
    is_list = "output_list" in faults or "output_many" in faults
    return prediction.file_urls if is_list else prediction.file_url


def _filled(shape: Any, urls: list[str]) -> Any:
    """The same JSON with the n-th file's URL wherever it says `$n`."""
    if isinstance(shape, dict):
        return {name: _filled(each, urls) for name, each in shape.items()}
    if isinstance(shape, list):
        return [_filled(each, urls) for each in shape]
    for number, url in enumerate(urls) if isinstance(shape, str) else ():
        if shape.strip() == f"${number}":
            return shape.replace(f"${number}", url)
    return shape


class Progress:
    """How far a run is, in its logs: lines as tqdm prints them, `40%|####      | 4/10`."""

    def __init__(self, emulator: Emulator, prediction: Prediction, least_s: float) -> None:
        self.emulator, self.prediction, self.least_s = emulator, prediction, least_s
        self.began = asyncio.get_running_loop().time()
        self.rendered = 0.0
        self.written = -1

    def report(self, share: float) -> None:
        """Called from the rendering thread; stops it when nobody waits for the result any more."""
        self.rendered = share
        if self.prediction.is_final or self.emulator.closing:
            raise Stopped

    def left_s(self) -> float:
        return max(0.0, self.least_s - (asyncio.get_running_loop().time() - self.began))

    async def tick(self) -> None:
        while not await lasts(self.prediction, LOGS_EVERY_S / 2):
            if self.write(min(self.rendered, 1 - self.left_s() / self.least_s, 0.99)):
                announce(self.emulator, self.prediction, "logs")

    def write(self, share: float) -> bool:
        """Adds a line when another tenth is done."""
        tenth = int(share * 10)
        if tenth <= self.written or self.prediction.is_final:
            return False
        self.written = tenth
        self.prediction.logs += f"{tenth * 10:3d}%|{'#' * tenth:10s}| {tenth}/10\n"
        return True
