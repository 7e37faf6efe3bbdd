"""A run's life after it was accepted.

starting ──► processing ──► succeeded | failed | canceled
   └───────► aborted | canceled
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from backend.emulator.kit.inputs import UnusableInput
from backend.emulator.kit.ledger import End
from backend.emulator.kit.progress import Progress, Stopped, lasts
from backend.emulator.kit.rendering import data_uri, further, render
from backend.emulator.kit.runs import PROCESSING, Output, Run
from backend.emulator.kit.state import Emulator
from backend.emulator.kit.webhooks import announce


def start(emulator: Emulator, run: Run) -> None:
    """Runs it beside the requests; a failure of our own ends it as one of the real service would."""

    def settle(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception():
            run.error = emulator.provider.interrupted
            end(emulator, run, "failed")

    emulator.spawn(_run(emulator, run)).add_done_callback(settle)


async def _run(emulator: Emulator, run: Run) -> None:
    """Takes it to its end. A cancel, a deadline or the emulator's closing stops it anywhere."""
    try:
        await _start(emulator, run)
        made = await _work(emulator, run)
        await _deliver(emulator, run, made)
    except Stopped:
        pass  # whoever ended it has announced it
    except UnusableInput as wrong:
        run.error = wrong.message
        end(emulator, run, "failed")


def end(emulator: Emulator, run: Run, status: str) -> None:
    """Gives it a final status, unless it has one, and announces that."""
    if run.finish(status):
        files = [file.sha256 for file in run.files]
        first = files[0] if files else None
        emulator.ledger.ends.append(End(run.id, status, first, run.started_at is not None, files))
        announce(emulator, run, "completed")
        asyncio.get_running_loop().call_later(emulator.options.expiry_s, expire, emulator, run)


def cancel(emulator: Emulator, run: Run) -> None:
    """Cancels it, because its creator wants it no more. What has ended stays as it is."""
    emulator.ledger.cancels.append({"prediction_id": run.id, "status": run.status})
    end(emulator, run, "canceled")


def expire(emulator: Emulator, run: Run) -> None:
    """Deletes the outputs, and what the run says of its input and output."""
    files = run.files
    run.remove_data()
    for file in files:
        if isinstance(file.source, Path) and file.source.parent == emulator.folder / "outputs":
            file.source.unlink(missing_ok=True)  # a prepared one belongs to all


async def guard_deadline(emulator: Emulator, run: Run, life_s: float) -> None:
    """Ends the run after its life: `aborted` when it has not started, else `canceled`."""
    if not await lasts(run, life_s):
        end(emulator, run, "canceled" if run.started_at else "aborted")


async def _start(emulator: Emulator, run: Run) -> None:
    delay = run.faults.get("delay", {"delay_s": 0})
    if await lasts(run, delay["delay_s"]):
        raise Stopped
    if "aborted" in run.faults:
        end(emulator, run, "aborted")
        raise Stopped
    run.status, run.started_at = PROCESSING, datetime.now(UTC)
    if unknown := run.faults.get("unknown_status"):
        run.status = unknown["status"]
    announce(emulator, run, "start")


async def _work(emulator: Emulator, run: Run) -> Output:
    """Renders, and takes at least the time it is set to take."""
    least_s = emulator.options.video_s if run.work.is_film else emulator.options.image_s
    progress = Progress(run, least_s, lambda: emulator.closing, lambda: announce(emulator, run, "logs"))
    ticking = emulator.spawn(progress.tick()) if least_s else None
    try:
        made = await render(emulator, run, progress.report)
        if await lasts(run, progress.left_s()):
            raise Stopped
    finally:
        if ticking:
            ticking.cancel()
    progress.write(1.0)
    await _fail_on_purpose(emulator, run)
    return made


async def _fail_on_purpose(emulator: Emulator, run: Run) -> None:
    if "stuck" in run.faults or run.faults.get("unknown_status", {}).get("forever"):
        await run.ended.wait()
        raise Stopped
    for status in ("failed", "canceled"):
        if status in run.faults:
            run.error = run.faults[status].get("error")
            end(emulator, run, status)
            raise Stopped


async def _deliver(emulator: Emulator, run: Run, made: Output) -> None:
    run.files = [made, *further(run, made)]
    named = await asyncio.to_thread(_named, run) if run.faults else run.file_urls
    if isinstance(made.source, Path):
        await asyncio.to_thread(lambda: made.sha256)  # of 500 MB: not on the event loop
    if run.is_final:  # canceled meanwhile: the first final status stays
        return
    run.urls = named
    announce(emulator, run, "output")
    end(emulator, run, "succeeded")


def _named(run: Run) -> list[str]:
    """Returns the URLs that the run names, changed by the faults."""
    if "output_other_host" in run.faults:
        return [str(run.faults["output_other_host"]["url"])]
    if "output_empty" in run.faults:
        return []
    if "output_data_uri" in run.faults:
        return [data_uri(run.files[0])]
    return run.file_urls
