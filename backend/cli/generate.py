"""`reelhook generate image|video`: ask a running service for something new."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from backend.cli.options import DEFAULT_URL, Json, Key, Out, Url, Wait
from backend.cli.output import print_json, print_line, say
from backend.cli.remote import Address

if TYPE_CHECKING:
    from reelhook import AsyncClient

app = typer.Typer(no_args_is_help=True, help="Generate an image or a video.")

Campaign = Annotated[str, typer.Option(metavar="ID", help="The campaign it is made for.")]
Prompt = Annotated[str | None, typer.Option(help="What to make.")]
Asset = Annotated[
    str | None,
    typer.Option(metavar="ID|FILE", help="An asset to start from: its id, or a file to upload first."),
]
Image = Annotated[str | None, typer.Option(metavar="ID", help="A generated image to start from.")]
Video = Annotated[str | None, typer.Option(metavar="ID", help="A generated video to start from: one of its frames.")]
Frame = Annotated[Literal["first", "last"] | None, typer.Option(help="Which frame of the video.")]
Model = Annotated[str | None, typer.Option(help="Another model than the default one.")]
Provider = Annotated[str | None, typer.Option(help="Another provider than the model's usual one.")]
Ratio = Annotated[str | None, typer.Option(metavar="W:H", help="Such as 16:9.")]
Copies = Annotated[int | None, typer.Option(min=1, max=4, help="How many to make.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Kept with it, and sent to models that take one.")]
Metadata = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Your own notes; may be repeated.")]


@app.command()
def image(
    campaign: Campaign,
    prompt: Prompt = None,
    asset: Asset = None,
    image: Image = None,
    video: Video = None,
    frame: Frame = None,
    model: Model = None,
    provider: Provider = None,
    aspect_ratio: Ratio = None,
    copies: Copies = None,
    seed: Seed = None,
    metadata: Metadata = None,
    wait: Wait = False,
    out: Out = None,
    json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Generate an image from a prompt, an asset, an image or a video."""
    _ask("image", locals())


@app.command()
def video(
    campaign: Campaign,
    prompt: Prompt = None,
    asset: Asset = None,
    image: Image = None,
    video: Video = None,
    frame: Frame = None,
    duration: Annotated[int | None, typer.Option(metavar="SECONDS", help="How long it is.")] = None,
    mode: Annotated[str | None, typer.Option(help="The model's mode, such as standard or pro.")] = None,
    resolution: Annotated[str | None, typer.Option(help="Such as 720p.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What to keep out.")] = None,
    end_image: Annotated[str | None, typer.Option(metavar="ID", help="The generated image it ends on.")] = None,
    model: Model = None,
    provider: Provider = None,
    aspect_ratio: Ratio = None,
    copies: Copies = None,
    seed: Seed = None,
    metadata: Metadata = None,
    wait: Wait = False,
    out: Out = None,
    json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Generate a video. With a prompt alone its start image is generated first."""
    _ask("video", locals())


def _ask(kind: str, given: dict[str, Any]) -> None:
    """Ask, and with --wait or --out stay until the end; exit status 1 when something was not completed."""
    body = {name: given[name] for name in PLAIN if given.get(name) is not None}
    body |= {field: given[name] for name, field in REFERENCES.items() if given[name] is not None}
    if given.get("end_image"):
        body["end_image"] = {"image_id": given["end_image"]}
    if given["metadata"]:
        body["metadata"] = dict(_pair(each) for each in given["metadata"])
    body["campaign_id"] = given["campaign"]
    if not (given["prompt"] or given["asset"] or any(name in body for name in REFERENCES.values())):
        raise typer.BadParameter("give at least one of --prompt, --asset, --image, --video")
    wait = given["wait"] or given["out"] is not None
    address = Address(given["url"], given["key"])
    answer, done = asyncio.run(_run(address, kind, body, given["asset"], wait, given["out"], given["json"]))
    _tell(answer, wait, given["json"])
    if not done:
        raise typer.Exit(1)


PLAIN = (
    "prompt",
    "frame",
    "duration",
    "mode",
    "resolution",
    "negative_prompt",
    "model",
    "provider",
    "aspect_ratio",
    "copies",
    "seed",
)
REFERENCES = {"image": "image_id", "video": "video_id"}


async def _run(
    address: Address,
    kind: str,
    body: dict[str, Any],
    asset: str | None,
    wait: bool,
    out: Path | None,
    quiet: bool,
) -> tuple[dict[str, Any], bool]:
    from backend.cli import following

    following.prepare(out)  # a folder that cannot be written to is found before anything is paid for
    async with address.open() as service:
        if asset is not None:
            body["asset_id"] = await _asset_id(service, asset)
        ask: Any = service.generate_video if kind == "video" else service.generate_image
        asked = await ask(**body)
        items = asked if isinstance(asked, list) else [asked]
        if not wait:
            return _document(asked, [each.raw for each in items]), True
        ids = [each.id for each in items]
        with following.shown(quiet=quiet) as show:
            ended = await following.follow(service, ids, show)
        made = await following.bring(service, ended, out)
    return _document(asked, made), following.tell_failures(made)


def _document(asked: object, made: list[dict[str, Any]]) -> dict[str, Any]:
    return {"items": made} if isinstance(asked, list) else made[0]


async def _asset_id(service: AsyncClient, given: str) -> str:
    """Return the id, or upload the file and return its id."""
    from backend.core.ids import is_id

    if is_id(given):
        return given
    if not Path(given).is_file():
        raise typer.BadParameter(f"--asset {given}: neither the id of an asset nor a file")
    return (await service.upload_asset(given)).id


def _tell(answer: dict[str, Any], waited: bool, json: bool) -> None:
    if json:
        return print_json(answer)
    for generation in answer.get("items") or [answer]:
        paths = [each["file"] for each in generation.get("files") or [] if each.get("file")]
        for line in paths or [generation.get("file") or (generation.get("url") if waited else None)]:
            print_line(line or generation["id"])
    if not waited:
        say("accepted; follow it with `reelhook watch ID`")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"--metadata {text}: write NAME=VALUE")
    return name, value
