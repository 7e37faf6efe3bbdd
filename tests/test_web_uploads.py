from __future__ import annotations

import hashlib
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.responses import JSONResponse, Response
from webserving import KEY, ask, make_app, make_rows, make_site, serve, until

from backend.storage import Spool
from backend.web.calls import uploads
from backend.web.calls.operation import Call, Operation, operation

OPERATIONS: list[Operation] = []
CAP = 3 << 20
FOLDER = Path(tempfile.mkdtemp(prefix="uploads-"))
SPOOL = Spool(FOLDER)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Whatever came of an upload, its file is gone."""
    yield
    until(lambda: not list(FOLDER.iterdir()))


@operation("POST", "/files", answers={201: None}, accepts=["multipart/form-data"], into=OPERATIONS)
async def take_file(call: Call) -> Response:
    """Take a file."""
    async with uploads.open_file(call.request, SPOOL, cap_bytes=CAP, idle_s=1) as file:
        size = file.path.stat().st_size
        assert (size, hashlib.sha256(file.path.read_bytes()).hexdigest()) == (file.size, file.sha256)
    return JSONResponse({"size": size, "name": file.filename}, 201)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serve(make_app(make_site(make_rows()), OPERATIONS)) as found:
        yield found


def part(content: bytes, name: str = "file", filename: str | None = "a.png", extra: str = "") -> bytes:
    label = f'; filename="{filename}"' if filename is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{label}\r\n{extra}\r\n'.encode() + content + b"\r\n"


def send(port: int, body: bytes, type_: str = "multipart/form-data; boundary=b") -> tuple[int, dict[str, object]]:
    answer = ask(port, "POST", "/files", key=KEY, content=body, headers={"Content-Type": type_})
    return answer.status, answer.json()


def test_one_file_is_taken_whole(port: int) -> None:
    assert send(port, part(b"x" * CAP) + b"--b--\r\n") == (201, {"size": CAP, "name": "a.png"})


def test_an_empty_file_is_a_file(port: int) -> None:
    assert send(port, part(b"") + b"--b--\r\n") == (201, {"size": 0, "name": "a.png"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"--b--\r\n", 422),
        (b"junk", 400),
        (part(b"x", filename=None) + b"--b--\r\n", 422),
        (part(b"x", name="other") + b"--b--\r\n", 422),
        (part(b"x") + part(b"y", name="note", filename=None) + b"--b--\r\n", 422),
        (part(b"x") + part(b"y") + b"--b--\r\n", 400),
        (part(b"y", name="n", filename=None) * 10_000 + b"--b--\r\n", 400),
        (part(b"y" * (65 << 10), name="n", filename=None) + b"--b--\r\n", 400),
        (part(b"x", extra="X: " + "y" * 100_000 + "\r\n") + b"--b--\r\n", 400),
        (part(b"x" * (CAP + 1)) + b"--b--\r\n", 413),
        (part(b"x" * (CAP + (1 << 20))) + b"--b--\r\n", 413),
    ],
)
def test_any_other_form_is_refused_in_the_usual_shape(port: int, body: bytes, status: int) -> None:
    got, problem = send(port, body)
    assert (got, problem["status"]) == (status, status)


@pytest.mark.parametrize(
    "type_", ["multipart/form-data", "multipart/form-data; boundary=", "text/plain", "multipart/x"]
)
def test_a_form_that_is_none_is_refused(port: int, type_: str) -> None:
    assert send(port, part(b"x") + b"--b--\r\n", type_)[0] in (400, 415, 422)


@pytest.mark.parametrize("codec", ["idna", "punycode", "undefined", "utf-7", "unicode_escape", "latin-1", "nonsense"])
def test_texts_are_utf8_whatever_codec_is_named(port: int, codec: str) -> None:
    """Python knows codecs that fail in ways of their own: one of them was a 500."""
    body = part(b"x", name="\\ud800", filename="xn--a") + b"--b--\r\n"
    assert send(port, body, f"multipart/form-data; boundary=b; charset={codec}")[0] == 415
    assert send(port, part(b"x") + b"--b--\r\n", "multipart/form-data; boundary=b; charset=UTF-8")[0] == 201


def test_the_texts_of_a_form_are_bounded_together(port: int) -> None:
    status, problem = send(port, part(b"y" * (33 << 10), name="n", filename=None) * 2 + b"--b--\r\n")
    assert (status, problem["detail"]) == (400, "The form's texts have more than 65536 bytes.")


def test_a_dripping_upload_is_cut(port: int) -> None:
    head = f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1000\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head.encode() + part(b"x")[:-2])
        assert b" 408 " in connection.recv(65536)
    assert time.monotonic() - began < 4


def test_an_upload_of_unknown_length_is_cut_at_the_cap(port: int) -> None:
    head = f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    piece = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    start = part(b"")[:-2]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head.encode() + f"{len(start):x}\r\n".encode() + start + b"\r\n" + piece * 4)
        assert b" 413 " in connection.recv(65536)
