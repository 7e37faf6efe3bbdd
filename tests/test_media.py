"""Files of every kind, whole, cut, mislabelled and hostile."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import threading
import wave
import zlib
from fractions import Fraction
from pathlib import Path

import av
import looking
import pytest
from PIL import Image

from backend import media
from backend.core.errors import InvalidMedia, ReelhookError, StorageFull
from backend.media import Probe

IMAGES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


def picture(width: int = 320, height: int = 200) -> Image.Image:
    noise = Image.effect_noise((width, height), 60).convert("RGB")
    return Image.blend(noise, Image.linear_gradient("L").resize((width, height)).convert("RGB"), 0.7)


def image(path: Path, kind: str, **options: object) -> Path:
    picture().save(path, kind, **options)
    return path


def video(
    path: Path,
    *,
    frames: int = 24,
    kind: str = "mp4",
    size: tuple[int, int] = (320, 180),
    fast: bool = False,
    noisy: bool = False,
) -> Path:
    """Grey values rise with time, so a picture tells when it was shown; noise makes large frames."""
    options = {"movflags": "+faststart"} if fast else {}
    with av.open(str(path), "w", format=kind, options=options) as container:
        stream = container.add_stream("libvpx-vp9" if kind == "webm" else "libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = 500
        for n in range(frames):
            grey = 20 + n * 200 // frames
            shown = Image.new("RGB", size, (grey, grey, grey))
            shown = Image.effect_noise(size, 80).convert("RGB") if noisy else shown
            container.mux(stream.encode(av.VideoFrame.from_image(shown)))
        container.mux(stream.encode())
    return path


def sound(path: Path, kind: str) -> Path:
    if kind == "wav":
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(os.urandom(16_000))
        return path
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream("aac" if kind == "mp4" else "libmp3lame", rate=44100)
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=44100)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.time_base = 44100, Fraction(1, 44100)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_is_what_its_bytes_say_whatever_its_name(tmp_path: Path, kind: str) -> None:
    path = image(tmp_path / "x.mp4", kind)
    assert looking.probe(path, full=False) == Probe("image", IMAGES[kind], 320, 200)
    assert looking.probe(path, full=True) == Probe("image", IMAGES[kind], 320, 200, frames=1)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("cut", [1, 9, 0.5, 0.95])
def test_a_truncated_image_is_refused(tmp_path: Path, kind: str, cut: float) -> None:
    whole = image(tmp_path / "whole", kind).read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(whole[: -int(cut)] if cut >= 1 else whole[: int(len(whole) * cut)])
    with pytest.raises(InvalidMedia):
        looking.probe(path, full=True)
    with pytest.raises(InvalidMedia):
        looking.inspect(path, tmp_path / "poster")
    assert not (tmp_path / "poster").exists()


def png_of(width: int, height: int) -> bytes:
    """A valid header that promises far more than follows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9_000))) + chunk(b"IEND", b"")


HOSTILE = {
    "nothing": b"",
    "one byte": b"\x89",
    "html": b"<!DOCTYPE html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>',
    "m3u8": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "gif and js": b"GIF89a/*" + bytes(20) + b"*/=1;alert(1);",
    "png header only": b"\x89PNG\r\n\x1a\n",
    "png bomb": png_of(50_000, 50_000),
    "png bomb below Pillow's own limit": png_of(9_000, 9_000),
    "png of no width": png_of(0, 10),
    "gif bomb": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
    "mp4 head": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "mp4 with a playlist inside": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom#EXTM3U\nfile:///etc/passwd\n",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "matroska": b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska",
    "webm head": b"\x1a\x45\xdf\xa3\x93\x42\x82\x84webm",
    "mp3 head": b"ID3\x04\0\0\0\0\0\0",
    "mp3 noise": b"\xff\xfb" + b"\xff" * 500,
    "wav head": b"RIFF\xff\xff\xff\xffWAVEfmt ",
    "riff": b"RIFF\0\0\0\0AVI ",
    "tiff": b"II*\0\x08\0\0\0",
    "bmp": b"BM" + bytes(60),
    "zip": b"PK\x03\x04" + bytes(60),
}


@pytest.mark.hazard(12)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_media_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(HOSTILE[name])
    for work in (
        lambda: looking.probe(path, full=True),
        lambda: looking.inspect(path, tmp_path / "poster"),
        lambda: looking.poster(path, tmp_path / "poster"),
        lambda: looking.frame(path, tmp_path / "poster", which="last"),
    ):
        with pytest.raises(InvalidMedia):
            work()
    assert not (tmp_path / "poster").exists()


@pytest.mark.parametrize("make", ["png", "jpeg", "webp", "gif", "mp4", "webm", "mp3", "wav"])
def test_broken_bytes_are_refused_or_read_and_nothing_else(tmp_path: Path, make: str) -> None:
    whole = tmp_path / "whole"
    if make in ("mp4", "webm"):
        video(whole, frames=6, kind=make, size=(64, 64))
    elif make in ("mp3", "wav"):
        sound(whole, make)
    else:
        Image.effect_noise((48, 48), 60).save(whole, make)
    content, chance = whole.read_bytes(), random.Random(7)
    path = tmp_path / "broken"
    for _ in range(60):
        broken = bytearray(content)
        for _ in range(chance.randint(1, 20)):
            broken[chance.randrange(16, len(broken))] = chance.randrange(256)
        path.write_bytes(broken)
        try:
            looking.inspect(path, tmp_path / "poster")
        except InvalidMedia as error:
            assert str(tmp_path) not in error.message


def test_an_animation_is_counted_and_a_cut_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [picture(64, 64) for _ in range(5)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert looking.probe(path, full=True) == Probe("image", "image/gif", 64, 64, frames=5)
    path.write_bytes(path.read_bytes()[:-2000] + b";")
    with pytest.raises(InvalidMedia):
        looking.probe(path, full=True)


def test_a_damaged_picture_in_an_animation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    frames = [picture(64, 64) for _ in range(5)]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    content = bytearray(path.read_bytes())
    last = content.rindex(b"VP8L") + 14
    content[last : last + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(InvalidMedia):
        looking.probe(path, full=True)


def test_an_animation_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.new("L", (100, 100), n) for n in range(30)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    monkeypatch.setattr("backend.media.inside.images.MOST_PIXELS", 200_000)
    with pytest.raises(InvalidMedia, match="more than"):
        looking.probe(path, full=True)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
def test_an_image_of_any_mode_gets_a_poster(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a"
    picture(1024, 768).convert(mode).save(path, "JPEG" if mode == "CMYK" else "PNG")
    assert looking.inspect(path, tmp_path / "poster").width == 1024
    with Image.open(tmp_path / "poster", formats=["JPEG"]) as small:
        assert small.size == (512, 384)


def test_transparency_becomes_white_in_a_poster(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "a.png")
    looking.poster(tmp_path / "a.png", tmp_path / "poster")
    with Image.open(tmp_path / "poster") as small:
        assert min(small.convert("RGB").getpixel((30, 30))) > 250


def test_a_photo_taken_sideways_is_shown_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    half = Image.new("RGB", (400, 200), "black")
    half.paste("white", (0, 0, 200, 200))  # left in the file, on top when shown
    half.save(tmp_path / "a.jpg", exif=exif)
    found = looking.inspect(tmp_path / "a.jpg", tmp_path / "poster")
    assert (found.width, found.height) == (200, 400)
    with Image.open(tmp_path / "poster") as small:
        assert small.size == (200, 400)
        assert small.convert("L").getpixel((100, 50)) > 200 and small.convert("L").getpixel((100, 350)) < 50


@pytest.mark.parametrize(("kind", "fast"), [("mp4", False), ("mp4", True), ("webm", False)])
def test_a_video_is_probed_and_its_frames_are_the_true_ones(tmp_path: Path, kind: str, fast: bool) -> None:
    path = video(tmp_path / "x.png", kind=kind, fast=fast)
    found = looking.inspect(path, tmp_path / "poster")
    assert (found.kind, found.content_type) == ("video", f"video/{kind}")
    assert (found.width, found.height, found.frames) == (320, 180, 24)
    assert found.duration_s == pytest.approx(1.0, abs=0.05)
    assert looking.probe(path, full=True) == found
    assert looking.probe(path, full=False).duration_s == found.duration_s
    greys = {}
    for which in ("first", "last"):
        still = looking.frame(path, tmp_path / which, which=which)
        assert still == Probe("image", "image/jpeg", 320, 180, frames=1)
        assert looking.probe(tmp_path / which, full=True) == still
        with Image.open(tmp_path / which) as shown:
            greys[which] = shown.convert("L").getpixel((200, 100))
    with Image.open(tmp_path / "poster") as shown:
        greys["poster"] = shown.convert("L").getpixel((200, 100))
    assert greys["first"] == pytest.approx(20, abs=3) and greys["last"] == pytest.approx(211, abs=3)
    assert greys["poster"] == pytest.approx(20 + 3 * 200 // 24, abs=9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return {
        "fast.mp4": video(folder / "1", size=(160, 90), noisy=True, fast=True).read_bytes(),
        "mp4": video(folder / "2", size=(160, 90), noisy=True).read_bytes(),
        "webm": video(folder / "3", size=(160, 90), noisy=True, kind="webm").read_bytes(),
        "wav": sound(folder / "4", "wav").read_bytes(),
    }


@pytest.mark.hazard(11)
@pytest.mark.parametrize("kind", ["fast.mp4", "mp4", "webm", "wav"])
@pytest.mark.parametrize("share", [0.9999, 0.99, 0.9, 0.5, 0.1])
def test_a_truncated_film_or_sound_is_refused(tmp_path: Path, whole, share: float, kind: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(whole[kind])
    looking.probe(path, full=True)
    path.write_bytes(whole[kind][: int(len(whole[kind]) * share)])
    with pytest.raises(InvalidMedia):
        looking.probe(path, full=True)


def test_a_film_of_unknown_length_that_ends_inside_a_picture_is_refused(tmp_path: Path, whole) -> None:
    content = bytearray(whole["fast.mp4"])
    box = content.rindex(b"mdat") - 4
    content[box : box + 4] = bytes(4)  # "to the end of the file"
    (tmp_path / "x").write_bytes(content)
    looking.probe(tmp_path / "x", full=True)
    (tmp_path / "x").write_bytes(content[:-20])
    with pytest.raises(InvalidMedia, match="short"):
        looking.probe(tmp_path / "x", full=True)


def test_bytes_after_a_film_do_no_harm(tmp_path: Path, whole) -> None:
    for kind in ("fast.mp4", "mp4", "webm", "wav"):
        (tmp_path / "x").write_bytes(whole[kind] + b"left by some editor" * 9)
        looking.probe(tmp_path / "x", full=True)


def test_a_film_that_plays_shorter_than_it_says_is_refused(tmp_path: Path, whole) -> None:
    content = bytearray(whole["webm"])
    at = content.index(b"\x44\x89\x88") + 3  # the Duration: a double in milliseconds
    content[at : at + 8] = struct.pack(">d", 60_000.0)
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InvalidMedia, match="short"):
        looking.probe(tmp_path / "x", full=True)


def test_a_large_video_gets_a_small_poster(tmp_path: Path) -> None:
    path = video(tmp_path / "x.mp4", frames=10, size=(1280, 720))
    looking.poster(path, tmp_path / "poster")
    with Image.open(tmp_path / "poster") as small:
        assert small.size == (640, 360)


def test_a_video_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch) -> None:
    path = video(tmp_path / "x.mp4", frames=2)
    monkeypatch.setattr("backend.media.inside.bounds.MAX_PIXELS", 1000)
    monkeypatch.setattr("backend.media.inside.videos.read", lambda *args: pytest.fail("decoded"))
    with pytest.raises(InvalidMedia, match="320 x 180"):
        looking.probe(path, full=True)


def test_a_video_filmed_sideways_is_shown_upright(tmp_path: Path) -> None:
    path = video(tmp_path / "x.mp4", frames=4)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    turned = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 180 << 16, 0, 0x40000000)  # a phone held upright
    content[matrix : matrix + 36] = turned
    path.write_bytes(content)
    found = looking.inspect(path, tmp_path / "poster")
    assert (found.width, found.height) == (180, 320)
    assert (looking.frame(path, tmp_path / "first", which="first").width) == 180


@pytest.mark.parametrize(("kind", "content_type"), [("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("mp4", "audio/mp4")])
def test_sound_is_probed_and_has_no_poster(tmp_path: Path, kind: str, content_type: str) -> None:
    path = sound(tmp_path / "x", kind)
    found = looking.inspect(path, tmp_path / "poster")
    assert (found.kind, found.content_type, found.width) == ("audio", content_type, None)
    assert found.duration_s == pytest.approx(1.0, abs=0.1)
    assert not (tmp_path / "poster").exists()
    with pytest.raises(InvalidMedia, match="not a video"):
        looking.frame(path, tmp_path / "still", which="first")


def test_every_kind_has_its_suffix() -> None:
    assert media.extension("image/jpeg") == ".jpg" and media.extension("video/mp4") == ".mp4"
    with pytest.raises(InvalidMedia):
        media.extension("text/html")


def test_a_missing_file_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        looking.probe(tmp_path / "x", full=True)


def test_a_full_disk_is_no_fault_of_the_picture(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(StorageFull):
        looking.poster(image(tmp_path / "a.png", "PNG"), tmp_path / "full")


async def test_media_work_runs_in_few_threads_of_its_own() -> None:
    names = await asyncio.gather(*[media.in_thread(lambda: threading.current_thread().name) for _ in range(20)])
    assert all(name.startswith("media") for name in names) and len(set(names)) <= 3


def test_our_errors_are_no_decoder_errors() -> None:
    from backend.media.inside.bounds import DECODE_ERRORS

    assert not issubclass(ReelhookError, DECODE_ERRORS)
