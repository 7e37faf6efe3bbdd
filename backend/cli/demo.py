"""`reelhook demo`: the whole way of an image and two videos, over real HTTP, with the local emulator."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backend.cli.following import Generation, follow, shown, tell_failures
from backend.cli.output import print_table, say, size
from backend.cli.processes import Interrupts, Program, answer_of, free_port
from backend.cli.remote import Address

if TYPE_CHECKING:
    from reelhook import AsyncClient
    from reelhook import Generation as Made

IMAGE = "A lighthouse on a basalt cliff at dawn, soft fog, long exposure"
VIDEO = "A paper boat drifting down a rain-washed street, evening light"
MOTION = "The camera rises slowly while the fog clears"


@dataclass(frozen=True)
class Stage:
    """A running service with a key and a campaign."""

    folder: Path
    settings: dict[str, str]
    address: Address


def run(parent: Path, *, open_folder: bool = False) -> bool:
    """Make one image and two videos in a new folder in `parent`, and return whether all three are completed."""
    folder = new_folder(parent)
    say(f"Reelhook demo in {folder}: starting the provider emulator and the service ...")
    with on_stage(folder) as stage:
        made = asyncio.run(_perform(stage))
    done = tell_failures(list(made.values()))
    _tell(stage, made)
    if open_folder:
        _open(folder)
    return done


def new_folder(parent: Path) -> Path:
    """Make a folder named after the time, with a number when another demo began in the same second."""
    parent.mkdir(parents=True, exist_ok=True)
    name = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder.resolve()


@contextmanager
def on_stage(folder: Path) -> Iterator[Stage]:
    """Run the emulator and the service with a database and a key of their own; stop both at the end."""
    with Interrupts() as interrupts, ExitStack() as running:
        with interrupts.held():
            emulator = Program("emulator", ["emulator", "--port", "0"], folder, {})
            running.callback(emulator.stop)
        port = free_port()  # known before the start: BASE_URL holds it, and with it every link in the results
        settings = {
            "DATABASE_URL": "sqlite:///data/reelhook.db",
            "STORAGE_URL": "file:data/media",
            "BASE_URL": f"http://127.0.0.1:{port}",
            "REPLICATE_BASE_URL": emulator.wait_for(r"(http://\S+/v1)"),
            "REPLICATE_API_TOKEN": "r8_emulator",  # nosec B105: everybody knows the emulator's
        }
        answer_of(["migrate"], folder, settings)
        key = json.loads(answer_of(["keys", "create", "--name", "demo", "--json"], folder, settings))["key"]
        _keep_settings(folder, settings)
        with interrupts.held():
            service = Program("service", ["serve", "--port", str(port)], folder, settings)
            running.callback(service.stop)
        yield Stage(folder, settings, Address(service.wait_for(r"ready at (http://\S+)"), key))


async def _perform(stage: Stage) -> dict[str, Generation]:
    """Ask for everything at once and follow it.

    Returns each result by the name of its file, with its path as `file`.
    """
    async with stage.address.open() as service:
        await service.request("GET", "/readyz")
        asked = await _ask(service)
        with shown() as show:
            ended = await follow(service, [generation.id for generation in asked.values()], show)
        made = dict(zip(asked, ended, strict=True))
        return {
            name: generation.raw | {"file": await _bring(service, stage, name, generation)}
            for name, generation in made.items()
        }


async def _ask(service: AsyncClient) -> dict[str, Made]:
    campaign = (await service.create_campaign("Demo")).id
    image = await service.generate_image(campaign_id=campaign, prompt=IMAGE, aspect_ratio="16:9")
    video = await service.generate_video(campaign_id=campaign, prompt=VIDEO)
    moved = await service.generate_video(campaign_id=campaign, prompt=MOTION, image_id=image.id)
    start = await service.generation(video.source["image_id"])
    return {"image": image, "start-image": start, "video-from-prompt": video, "video-from-image": moved}


async def _bring(service: AsyncClient, stage: Stage, name: str, generation: Made) -> Path | None:
    if generation.status != "completed":
        return None
    file = await service.download(generation, stage.folder)
    return file.rename(file.with_name(name + file.suffix))


def _keep_settings(folder: Path, settings: dict[str, str]) -> None:
    """Write the same settings into .env, for a person who goes on in the folder."""
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    (folder / ".env").write_text(lines)


def _tell(stage: Stage, made: dict[str, Generation]) -> None:
    rows = [
        (each["id"], each["kind"], each["status"], _seconds(each), size(each["bytes"]), each["file"], each["url"])
        for each in made.values()
    ]
    print_table(("id", "kind", "status", "seconds", "size", "file", "url"), rows)
    command = shlex.quote(str(Path(sys.executable).with_name("reelhook")))
    port, emulator = (stage.settings[name].split(":")[2] for name in ("BASE_URL", "REPLICATE_BASE_URL"))
    say(f"""
Files, database and logs are in {stage.folder}
To go on with them:
  cd {shlex.quote(str(stage.folder))}
  {command} emulator --port {emulator.split("/")[0]} & {command} serve --port {port} &
  export REELHOOK_URL={stage.address.url} REELHOOK_API_KEY={stage.address.key}
  {command} list""")


def _seconds(generation: Generation) -> str:
    if not generation["completed_at"]:
        return ""
    began, ended = (datetime.fromisoformat(generation[name]) for name in ("created_at", "completed_at"))
    return f"{(ended - began).total_seconds():.1f}"


def _open(folder: Path) -> None:
    import typer

    if typer.launch(str(folder)):
        say(f"nothing here opens folders; look into {folder}")
