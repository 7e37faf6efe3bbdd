"""Files that cost far more than they weigh, made by hand or by an encoder; each function writes one."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

Maker = Callable[[Path], None]
MILLIONS = 3_000_000


class Bits:
    """A string of bits; H.264 writes the first bit of a byte highest, WebP lowest."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def put(self, value: int, count: int) -> Bits:
        self.text.append(f"{value:0{count}b}" if count else "")
        return self

    def ue(self, value: int) -> Bits:
        """Exp-Golomb (ITU-T H.264, 9.1)."""
        return self.put(value + 1, 2 * (value + 1).bit_length() - 1)

    def low(self, value: int, count: int) -> Bits:
        """The lowest bit first."""
        self.text.append(f"{value:0{count}b}"[::-1])
        return self

    def to_bytes(self, *, lowest_first: bool = False) -> bytes:
        text = "".join(self.text)
        text += "0" * (-len(text) % 8)
        if lowest_first:
            return bytes(int(text[at : at + 8][::-1], 2) for at in range(0, len(text), 8))
        return int(text, 2).to_bytes(len(text) // 8, "big")


def nal(kind: int, bits: Bits) -> bytes:
    """One unit of H.264 in a byte stream, with the stop bit and the bytes that break up start codes."""
    body = bits.put(1, 1).to_bytes()
    return b"\0\0\0\1" + bytes([kind]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", body)


def h264_size(width: int, height: int) -> bytes:
    """SPS and PPS: baseline, level 6.2, one reference picture."""
    sps = Bits().put(66, 8).put(0, 8).put(62, 8)
    sps.ue(0).ue(0).ue(2).ue(1).put(0, 1).ue(width // 16 - 1).ue(height // 16 - 1).put(0b1100, 4)
    pps = Bits().ue(0).ue(0).put(0, 2).ue(0).ue(0).ue(0).put(0, 1).put(0, 2).ue(0).ue(0).ue(0).put(0b100, 3)
    return nal(0x67, sps) + nal(0x68, pps)


def h264_key(width: int, height: int, id: int = 0) -> bytes:
    """A key frame that is grey: eight bits for each 16 x 16 pixels."""
    head = Bits().ue(0).ue(7).ue(0).put(0, 4).ue(id).put(0, 2).ue(0).ue(1)
    head.text.append("00100111" * (width // 16 * height // 16))
    return nal(0x65, head)


def h264_skip(width: int, height: int, number: int) -> bytes:
    """A frame that repeats the one before it."""
    head = Bits().ue(0).ue(5).ue(0).put(number % 16, 4).put(0, 2).put(0, 1).ue(0).ue(1)
    return nal(0x41, head.ue(width // 16 * height // 16))


def mp4(path: Path, pictures: Iterable[bytes], rate: int = 30) -> None:
    """An MP4 of these H.264 pictures; the header says what the first one does."""
    pictures = list(pictures)
    with av.open(io.BytesIO(pictures[0] * 2), format="h264") as raw, av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream_from_template(raw.streams.video[0])
        for number, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.stream, packet.time_base = stream, Fraction(1, rate)
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, picture[4] == 0x67
            out.mux(packet)


def lying_film(path: Path, size: int = 16_000) -> None:
    """1 MB: the header says 64 x 64, and so does the first picture; the next ones say 16000 x 16000."""
    large = h264_size(size, size) + h264_key(size, size)
    mp4(path, [h264_size(64, 64) + h264_key(64, 64), large])


def skipping_film(path: Path, count: int = 1500, size: tuple[int, int] = (7680, 6400)) -> None:
    """217 kB: one key frame of 49 megapixels, and 1,500 that repeat it."""
    key = h264_size(*size) + h264_key(*size)
    mp4(path, [key, *(h264_skip(*size, number) for number in range(1, count))])


def key_frames(path: Path, count: int = 40, size: tuple[int, int] = (7680, 6400)) -> None:
    """Nothing but key frames of 49 megapixels."""
    mp4(path, [h264_size(*size) + h264_key(*size, number % 2) for number in range(count)])


def growing_webm(path: Path, size: tuple[int, int] = (8192, 8192)) -> None:
    """VP8 whose first key frame is 64 x 64 like the header, and whose second one is far larger."""
    with av.open(str(path), "w", format="webm") as out:
        stream = out.add_stream("libvpx", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        packets = stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 64))))
        for packet in [*packets, *stream.encode()]:
            small = bytes(packet)
            out.mux(packet)
        large = bytearray(small)
        large[6:10] = struct.pack("<HH", *size)
        packet = av.Packet(bytes(large) + bytes(2_000))
        packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 24), 5, 5
        packet.is_keyframe = True
        out.mux(packet)


def flat_webp(path: Path, width: int = 16_383, height: int = 16_383) -> None:
    """30 bytes: every pixel has the one colour there is."""
    body = vp8l(width, height)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)


def flat_frames(path: Path, side: int, count: int) -> None:
    """An animated WebP of such pictures (WebP container specification, "Animation")."""
    edge = (side - 1).to_bytes(3, "little")
    frame = bytes(6) + edge * 2 + b"\x32\0\0\0" + vp8l(side, side)
    body = b"VP8X\x0a\0\0\0\x02\0\0\0" + edge * 2 + b"ANIM\x06\0\0\0" + bytes(6)
    body += (b"ANMF" + struct.pack("<I", len(frame)) + frame) * count
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)


def vp8l(width: int, height: int) -> bytes:
    """A chunk of lossless WebP in which each code has one symbol, so that pixels take no bits (its bitstream, 6.2)."""
    bits = Bits().low(0x2F, 8).low(width - 1, 14).low(height - 1, 14).low(0, 4).low(0, 3)
    for symbol_bits in (8, 1, 1, 1, 1):
        bits.low(1, 1).low(0, 1).low(symbol_bits == 8, 1).low(0, symbol_bits)
    body = bits.to_bytes(lowest_first=True)
    body += bytes(len(body) % 2)
    return b"VP8L" + struct.pack("<I", len(body)) + body


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, between: bytes = b"", *, kind: int = 2, depth: int = 8) -> bytes:
    """A black picture with other chunks before its pixels; kinds are 0 grey, 2 RGB, 3 palette, 6 RGBA."""
    line = 1 + width * {0: 1, 2: 3, 3: 1, 6: 4}[kind] * depth // 8
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(line)) for _ in range(height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(768)) if kind == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + head + palette + between + chunk(b"IDAT", packed) + chunk(b"IEND")


def apng(path: Path, width: int, height: int, count: int) -> None:
    """An animation whose frames after the first are one pixel; a viewer composes the whole each time."""
    pixel = zlib.compress(bytes(4))
    parts, order = chunk(b"acTL", struct.pack(">II", count, 0)), 0
    parts += chunk(b"fcTL", struct.pack(">IIIIIHHBB", order, width, height, 0, 0, 1, 20, 0, 0))
    rest = b""
    for _ in range(count - 1):
        rest += chunk(b"fcTL", struct.pack(">IIIIIHHBB", order + 1, 1, 1, 0, 0, 1, 20, 0, 0))
        rest += chunk(b"fdAT", struct.pack(">I", order + 2) + pixel)
        order += 2
    whole = png(width, height, parts)
    path.write_bytes(whole[:-12] + rest + whole[-12:])


def gif(path: Path, side: int, count: int) -> None:
    """Frames of one colour each."""
    frames = [Image.new("P", (side, side), number) for number in range(2)] * (count // 2)
    for number, frame in enumerate(frames[:2]):
        frame.putpixel((number, number), 7)
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=50)


def many_scans(path: Path, side: int = 6000, count: int = 5000) -> None:
    """A progressive JPEG that says each picture's refinement again and again: a few bytes a scan, a pass over all."""
    made = io.BytesIO()
    Image.new("L", (side, side)).save(made, "JPEG", progressive=True)
    whole = made.getvalue()
    scan = whole.rindex(b"\xff\xda")
    path.write_bytes(whole[:scan] + whole[scan:-2] * count + b"\xff\xd9")


def odd_codec(path: Path, codec: str, container: str = "mov", pix_fmt: str = "yuv420p") -> None:
    """A film in a container that is taken, in a codec that is not."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        for _ in range(5):
            for packet in stream.encode(av.VideoFrame(64, 64, pix_fmt)):
                out.mux(packet)
        out.mux(stream.encode())
    if container == "matroska":
        path.write_bytes(path.read_bytes().replace(b"\x42\x82\x88matroska", b"\x42\x82\x84webm\xec\x82\0\0", 1))


def write(content: Callable[[], bytes]) -> Maker:
    return lambda path: path.write_bytes(content()) and None


FTYP = struct.pack(">I", 24) + b"ftypmp42\0\0\0\0mp42isom"
EBML = b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm"

# By name: what makes it. None of them is larger than 50 MB.
HOSTILE: dict[str, Maker] = {
    "a film whose stream is larger than its header": lying_film,
    "the same below the limit of pixels": lambda path: lying_film(path, 6_992),
    "a film of frames that repeat": skipping_film,
    "a film of large key frames": key_frames,
    "VP8 that grows": growing_webm,
    "VP8 that grows below the limit of pixels": lambda path: growing_webm(path, (8192, 6000)),
    "a flat WebP of 268 megapixels": flat_webp,
    "a flat WebP of 49 megapixels": lambda path: flat_webp(path, 7000, 7000),
    "a PNG of 49 megapixels": write(lambda: png(7000, 7000, kind=6)),
    "a PNG of 49 megapixels and 16 bits": write(lambda: png(7000, 7000, kind=6, depth=16)),
    "a PNG of 49 megapixels with a palette": write(lambda: png(7000, 7000, kind=3)),
    "a PNG of empty chunks": write(lambda: png(8, 8, chunk(b"teSt") * MILLIONS)),
    "a PNG of empty texts": write(lambda: png(8, 8, chunk(b"tEXt", b"a\0") * MILLIONS)),
    "a PNG of empty pixels": write(lambda: png(8, 8)[:-12] + chunk(b"IDAT") * MILLIONS + chunk(b"IEND")),
    "a JPEG of empty segments": write(lambda: b"\xff\xd8" + b"\xff\xe1\0\2" * MILLIONS + b"\xff\xd9"),
    "a JPEG of scans": many_scans,
    "a WebP of empty chunks": write(
        lambda: b"RIFF" + struct.pack("<I", 4 + 8 * MILLIONS) + b"WEBP" + b"teSt\0\0\0\0" * MILLIONS
    ),
    "a GIF of one-byte blocks": write(
        lambda: b"GIF89a\10\0\10\0\0\0\0!\xfe" + b"\1x" * MILLIONS + b"\0,\0\0\0\0\10\0\10\0\0\2\2D\1\0;"
    ),
    "an MP4 of empty boxes": write(lambda: FTYP + b"\0\0\0\10free" * MILLIONS),
    "an MP4 of empty boxes in a box": write(
        lambda: FTYP + struct.pack(">I", 8 + 8 * MILLIONS) + b"moov" + b"\0\0\0\10trak" * MILLIONS
    ),
    "an MP4 of boxes in boxes": write(
        lambda: FTYP + b"".join(struct.pack(">I", 8 * (MILLIONS // 10 - n)) + b"moov" for n in range(MILLIONS // 10))
    ),
    "a WebM of empty elements": write(lambda: EBML + b"\x18\x53\x80\x67\xff" + b"\xec\x80" * MILLIONS),
    "a WebM of empty clusters": write(lambda: EBML + b"\x18\x53\x80\x67\xff" + b"\x1f\x43\xb6\x75\x80" * MILLIONS),
    "a GIF of frames": lambda path: gif(path, 16, 5000),
    "a GIF of large frames": lambda path: gif(path, 3000, 60),
    "an APNG of large frames": lambda path: apng(path, 7000, 7000, 900),
    "an APNG of frames within the budget": lambda path: apng(path, 1800, 1800, 120),
    "a WebP of large frames": lambda path: flat_frames(path, 3000, 60),
    "an MP3 of tags": write(lambda: b"ID3\4\0\0\0\0\0\0" * MILLIONS),
    "a WAV of empty chunks": write(lambda: b"RIFF\xff\xff\xff\xffWAVE" + b"teSt\0\0\0\0" * MILLIONS),
}
ODD_CODECS = [
    ("cinepak", "mov", "rgb24"),
    ("mpeg2video", "mov", "yuv420p"),
    ("qtrle", "mov", "rgb24"),
    ("png", "mov", "rgb24"),
    ("jpeg2000", "mov", "rgb24"),
    ("ffv1", "matroska", "yuv420p"),
    ("snow", "matroska", "yuv420p"),
    ("mpeg1video", "matroska", "yuv420p"),
    ("msmpeg4", "matroska", "yuv420p"),
]
