"""What the emulator makes are real files: they decode, they have the promised size, and they repeat."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import av
import httpx
import pytest
from emulating import VIDEO, Provider, emulating, png, saved, until
from PIL import Image, ImageStat

from backend.emulator import EmulatorOptions

FULL = EmulatorOptions(image_s=0, video_s=0)


def data_uri(size: tuple[int, int], colour: str = "#3366aa") -> str:
    return "data:image/png;base64," + base64.b64encode(png(size, colour)).decode()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with emulating(FULL) as provider:
        yield provider


def picture(provider: Provider, prompt: str = "a fox", **more: object) -> tuple[bytes, Image.Image]:
    ended = provider.made(prompt, **more)
    assert ended["error"] is None
    content = provider.download(ended["output"]).content
    image = Image.open(BytesIO(content))
    image.load()
    return content, image


@pytest.mark.parametrize(("ratio", "size"), [("1:1", (1024, 1024)), ("16:9", (1344, 768)), ("9:16", (768, 1344))])
def test_an_image_has_the_size_of_its_aspect_ratio(provider: Provider, ratio: str, size: tuple[int, int]) -> None:
    assert picture(provider, aspect_ratio=ratio)[1].size == size


def test_images_are_jpeg_or_png_as_asked(provider: Provider) -> None:
    assert picture(provider)[1].format == "JPEG"
    assert picture(provider, output_format="png")[1].format == "PNG"


def test_the_same_request_gives_the_same_bytes_and_another_prompt_others(provider: Provider) -> None:
    first, again, other = (picture(provider, prompt)[0] for prompt in ("a fox", "a fox", "a crow"))
    assert first == again
    assert first != other


def test_an_edit_is_made_from_its_first_image(provider: Provider) -> None:
    for channel, colour in enumerate(("#ff0000", "#00ff00", "#0000ff")):
        _, image = picture(provider, image_input=[data_uri((400, 100), colour)])
        assert image.width / image.height == pytest.approx(4, rel=0.1)
        means = ImageStat.Stat(image.crop((0, 0, image.width, image.height // 2))).mean
        assert max(means) == means[channel] > 200


@pytest.mark.parametrize("prompt", ["", " ", "\n\t\x00", "狐狸 🦊 " * 50, "x" * 20_000])
def test_any_prompt_can_be_drawn(provider: Provider, prompt: str) -> None:
    assert picture(provider, prompt)[1].size == (1024, 1024)


@pytest.mark.parametrize(
    ("start", "more", "size", "seconds"),
    [
        ((320, 180), {}, (1280, 720), 5),
        pytest.param((180, 320), {"duration": 10}, (720, 1280), 10, marks=pytest.mark.story),
        ((200, 200), {}, (960, 960), 5),
        pytest.param(
            *((320, 180), {"mode": "pro", "end_image": data_uri((64, 64), "#00ff00")}, (1920, 1080), 5),
            marks=pytest.mark.story,
        ),
    ],
)
def test_a_video_has_its_size_length_and_codec(
    provider: Provider,
    tmp_path: Path,
    start: tuple[int, int],
    more: dict[str, object],
    size: tuple[int, int],
    seconds: int,
) -> None:
    ended = provider.made(model=VIDEO, start_image=data_uri(start), **more)
    assert ended["error"] is None
    assert "100%|##########| 10/10" in ended["logs"]
    content = provider.download(ended["output"]).content
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(saved(content, tmp_path / "film.mp4"))) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == size
        assert stream.average_rate == 24
        assert sum(1 for _ in film.decode(stream)) == seconds * 24


@pytest.mark.story  # two films are encoded whole
def test_the_same_video_is_made_of_the_same_bytes(provider: Provider) -> None:
    urls = [provider.made(model=VIDEO, start_image=data_uri((64, 36)))["output"] for _ in range(2)]
    first, again = (provider.download(url).content for url in urls)
    assert first == again


def test_a_video_tells_its_progress_and_a_cancel_stops_it(tmp_path: Path) -> None:
    with emulating(EmulatorOptions(video_s=2, folder=tmp_path)) as slow:
        made = slow.create(model=VIDEO, start_image=data_uri((320, 180)), duration=10).json()
        until(lambda: "%|" in slow.get(made["id"])["logs"])
        assert slow.get(made["id"])["status"] == "processing"
        slow.http.post(f"/predictions/{made['id']}/cancel")
        assert slow.get(made["id"])["status"] == "canceled"
        until(lambda: not list((tmp_path / "outputs").iterdir()), within_s=2)
        assert slow.made(image_input=[data_uri((64, 64))])["status"] == "succeeded"


def test_an_end_image_needs_the_pro_mode(provider: Provider) -> None:
    image = data_uri((64, 36))
    ended = provider.made(model=VIDEO, start_image=image, end_image=image)
    assert (ended["status"], ended["error"]) == ("failed", "end_image needs mode pro")


@pytest.mark.parametrize("render", ["full", "tiny"])
@pytest.mark.parametrize("kind", ["png", "jpg", "mp4"])
def test_a_padded_output_is_still_valid(tmp_path: Path, render: str, kind: str) -> None:
    size = (3 << 20) + 7
    options = EmulatorOptions(image_s=0, video_s=0, render=render, output_bytes=size)  # type: ignore[arg-type]
    with emulating(options) as provider:
        if kind == "mp4":
            ended = provider.made(model=VIDEO, start_image=data_uri((64, 36)))
        else:
            ended = provider.made(output_format=kind)
        content = provider.download(ended["output"]).content
    assert len(content) == size
    path = saved(content, tmp_path / f"out.{kind}")
    if kind == "mp4":
        with av.open(str(path)) as film:
            assert sum(1 for _ in film.decode(film.streams.video[0])) >= 24
    else:
        with Image.open(path) as image:
            image.load()


@pytest.mark.parametrize("extra", range(14))
def test_a_png_is_padded_to_the_byte_wherever_a_chunk_can_end(tmp_path: Path, extra: int) -> None:
    from backend.emulator.kit.render import padding

    path = saved(png(), tmp_path / "a.png")
    wanted = len(png()) + 12 + (1 << 20) + extra
    padding.pad(path, "image/png", wanted)
    assert path.stat().st_size == wanted
    with Image.open(path) as image:
        image.verify()


@pytest.mark.story
def test_an_output_of_half_a_gigabyte_is_served_without_being_held() -> None:
    with emulating(EmulatorOptions(image_s=0, render="tiny", output_bytes=500 << 20)) as provider:
        url, got = provider.made()["output"], 0
        with httpx.stream("GET", url, timeout=60) as answer:
            assert int(answer.headers["content-length"]) == 500 << 20
            for piece in answer.iter_raw():
                got += len(piece)
    assert got == 500 << 20


def test_a_failure_of_the_emulator_itself_fails_the_prediction(tmp_path: Path) -> None:
    with emulating(EmulatorOptions(image_s=0, folder=tmp_path)) as provider:
        (tmp_path / "outputs").rmdir()
        ended = provider.made()
        assert (ended["status"], ended["output"]) == ("failed", None)


@pytest.mark.parametrize("size", [(1, 3000), pytest.param((3000, 1), marks=pytest.mark.story), (1, 1)])
def test_odd_shapes_can_be_edited_and_filmed(provider: Provider, size: tuple[int, int]) -> None:
    picture(provider, image_input=[data_uri(size)])
    assert provider.made(model=VIDEO, start_image=data_uri(size))["status"] == "succeeded"


def test_a_pixel_bomb_is_refused_unopened(provider: Provider) -> None:
    head = b"\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    bomb = b"\x89PNG\r\n\x1a\n" + head + zlib.crc32(head[4:]).to_bytes(4, "big") + png()[33:]
    uri = "data:image/png;base64," + base64.b64encode(bomb).decode()
    ended = provider.made(model=VIDEO, start_image=uri)
    assert (ended["status"], ended["error"][:13]) == ("failed", "start_image: ")


def test_a_fault_can_pad_a_single_output(provider: Provider) -> None:
    provider.spoil({"kind": "output_bytes", "bytes": 1 << 20, "times": 1})
    assert len(picture(provider, output_format="png")[0]) == 1 << 20
    provider.spoil()
