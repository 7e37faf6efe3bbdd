"""Files as people and models really make them, written by code: most of them nobody here decodes."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
from emulating import png
from PIL import Image

SVG = b'<?xml version="1.0"?>\n<!-- made -->\n<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def still(kind: str, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "#a03060").save(buffer, kind, **options)
    return buffer.getvalue()


def animation(frames: int) -> bytes:
    buffer = io.BytesIO()
    shown = [Image.new("RGB", (16, 16), (n % 256, n // 256, 7)) for n in range(frames)]
    shown[0].save(buffer, "WEBP", save_all=True, append_images=shown[1:], lossless=True)
    return buffer.getvalue()


def film(kind: str, codec: str = "mpeg4", sound_s: float = 0.0) -> bytes:
    """One second of pictures, and perhaps sound that goes on longer."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "film"
        with av.open(str(path), "w", format=kind) as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            sound = container.add_stream("aac", rate=44100) if sound_s else None
            for n in range(10):
                container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), (n * 20, 80, 80)))))
            container.mux(stream.encode())
            if sound is not None:
                container.mux(sound.encode(_silence(int(44100 * sound_s))))
                container.mux(sound.encode())
        return path.read_bytes()


def tone(kind: str, codec: str, rate: int = 48000, sample: str = "flt") -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tone"
        with av.open(str(path), "w", format=kind) as container:
            stream = container.add_stream(codec, rate=rate)
            resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=rate)
            for frame in resampler.resample(_silence(rate, rate)):
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


def _silence(samples: int, rate: int = 44100) -> av.AudioFrame:
    frame = av.AudioFrame(format="fltp", layout="stereo", samples=samples)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    return frame


def without_ftyp(content: bytes) -> bytes:
    """As QuickTime wrote films before there was `ftyp`: `wide` and `mdat` come first."""
    length = int.from_bytes(content[:4], "big")
    return struct.pack(">I4s", 8, b"wide") + bytes(0) + content[length:]


def odd_exif() -> bytes:
    """EXIF that cannot be parsed, as some generators write it."""
    whole = still("JPEG")
    segment = b"Exif\0\0b'Exif\\x00\\x00MM'"
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + whole[2:]


# name: its bytes, the content type it is served as, and whether a browser may show it in place
ODD: dict[str, tuple[Callable[[], bytes], str, bool]] = {
    "avif": (lambda: still("AVIF"), "image/avif", True),
    "tiff": (lambda: still("TIFF"), "image/tiff", True),
    "bmp": (lambda: still("BMP"), "image/bmp", True),
    "jpeg with odd exif": (odd_exif, "image/jpeg", True),
    "gif without its last byte": (lambda: still("GIF")[:-1], "image/gif", True),
    "cut png": (lambda: still("PNG")[:-20], "image/png", True),
    "webp of 260 frames": (lambda: animation(260), "image/webp", True),
    "heic by its brand": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "image/heic", True),
    "jxl": (lambda: b"\xff\x0a" + bytes(99), "image/jxl", True),
    "svg": (lambda: SVG, "image/svg+xml", False),
    "film with longer sound": (lambda: film("mp4", "libx264", 5.0), "video/mp4", True),
    "mov": (lambda: film("mov"), "video/quicktime", True),
    "mov without ftyp": (lambda: without_ftyp(film("mov")), "video/quicktime", True),
    "mkv": (lambda: film("matroska"), "video/x-matroska", True),
    "mpeg-ts": (lambda: film("mpegts"), "video/mp2t", True),
    "avi": (lambda: film("avi"), "video/x-msvideo", True),
    "opus": (lambda: tone("ogg", "libopus"), "audio/ogg", True),
    "flac": (lambda: tone("flac", "flac"), "audio/flac", True),
    "adts": (lambda: tone("adts", "aac"), "audio/aac", True),
    "m4a": (lambda: tone("ipod", "aac"), "audio/mp4", True),
    "mp3": (lambda: tone("mp3", "libmp3lame"), "audio/mpeg", True),
    "pdf": (lambda: b"%PDF-1.7\n" + bytes(200), "application/octet-stream", False),
    "zip": (lambda: b"PK\x03\x04" + bytes(200), "application/octet-stream", False),
    "text": (lambda: b"a caption, and nothing else", "application/octet-stream", False),
    "json that is no complaint": (lambda: b'{"masks": [1, 2]}', "application/octet-stream", False),
    "noise": (lambda: bytes(range(7, 250)) * 40, "application/octet-stream", False),
    "one byte": (lambda: b"x", "application/octet-stream", False),
    "png with a tail": (lambda: png() + b"<html>cached</html>", "image/png", True),
}
