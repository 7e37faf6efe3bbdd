"""The stored bytes over HTTP: in ranges, by key or by a link that nobody can bend, and never as something to run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from api_service import Service, Tenant, form, png, running

from backend.live import links

SIZE = 1000
CONTENT = png() + bytes(range(256)) * 4
CONTENT = CONTENT[:SIZE]


@dataclass(frozen=True)
class Stage:
    service: Service
    who: Tenant
    id: str
    path: str
    link: str
    tag: str


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running(tmp_path_factory.mktemp("media")) as service:
        who = service.tenant()
        id = service.generate(who)["id"]
        service.completed(id, CONTENT, png(kind="JPEG"))
        shown = service.ask("GET", f"/api/v2/generations/{id}", key=who.key).json()
        link = urlsplit(shown["url"])
        path = f"/api/v2/images/{id}/data"
        yield Stage(service, who, id, path, f"{link.path}?{link.query}", f'"{shown["sha256"]}"')


RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-99", 0, 100),
    ("bytes=100-199", 100, 200),
    ("bytes=990-2000", 990, 1000),
    ("bytes=999-", 999, 1000),
    ("bytes=0-", 0, 1000),
    ("bytes=-1", 999, 1000),
    ("bytes=-5000", 0, 1000),
    ("Bytes=5-6", 5, 7),
    ("bytes = 5 - 6", 5, 7),
]


@pytest.mark.parametrize(("asked", "start", "end"), RANGES)
def test_one_range_is_given_exactly(stage: Stage, asked: str, start: int, end: int) -> None:
    for method in ("GET", "HEAD"):
        got = stage.service.ask(method, stage.path, key=stage.who.key, headers={"Range": asked})
        assert got.status == 206
        assert got.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
        assert got.headers["content-length"] == str(end - start)
        assert got.body == (CONTENT[start:end] if method == "GET" else b"")


@pytest.mark.parametrize("asked", ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=999999999999999999-"])
def test_a_range_beyond_the_file_is_416_and_says_how_long_it_is(stage: Stage, asked: str) -> None:
    got = stage.service.ask("GET", stage.path, key=stage.who.key, headers={"Range": asked})
    assert (got.status, got.headers["content-range"]) == (416, f"bytes */{SIZE}")
    assert got.json()["code"] == "range_not_satisfiable"


IGNORED = ["bytes=0-1,5-6", "bytes=" + ",".join(f"{n}-{n}" for n in range(200)), "bytes=5-2", "bytes=-", "bytes="]
IGNORED += ["bytes=a-b", "lines=0-5", "0-5", "bytes=0-5-7", "bytes=" + "9" * 30 + "-", "bytes=+1-5", "bytes=\u0661-5"]


@pytest.mark.parametrize("asked", IGNORED, ids=lambda given: given[:20])
def test_any_other_range_gets_the_whole_file(stage: Stage, asked: str) -> None:
    got = stage.service.ask("GET", stage.path, key=stage.who.key, headers={"Range": asked.encode().decode("latin-1")})
    assert (got.status, got.body) == (200, CONTENT)
    assert "content-range" not in got.headers


def test_the_whole_file_is_given_as_what_it_is_and_never_to_be_run(stage: Stage) -> None:
    for key, path in ((stage.who.key, stage.path), ("", stage.link)):
        got = stage.service.ask("GET", path, key=key)
        assert (got.status, got.body) == (200, CONTENT)
        expected = {
            "content-type": "image/png",
            "content-length": str(SIZE),
            "accept-ranges": "bytes",
            "etag": stage.tag,
            "cache-control": "private, max-age=31536000, immutable",
            "content-disposition": f'inline; filename="{stage.id}.png"',
            "x-content-type-options": "nosniff",
            "content-security-policy": "default-src 'none'; sandbox",
            "referrer-policy": "no-referrer",
        }
        assert {name: got.headers.get(name) for name in expected} == expected
    assert stage.service.ask("HEAD", stage.path, key=stage.who.key).headers["content-length"] == str(SIZE)


def test_what_a_client_has_already_is_not_sent_again(stage: Stage) -> None:
    def status(**headers: str) -> tuple[int, bytes]:
        got = stage.service.ask(
            "GET", stage.path, key=stage.who.key, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        return got.status, got.body

    for known in (stage.tag, f"W/{stage.tag}", "*", f'"other", {stage.tag}'):
        assert status(If_None_Match=known) == (304, b"")
    assert status(If_None_Match='"other"') == (200, CONTENT)
    assert status(If_None_Match=stage.tag, Range="bytes=0-1") == (304, b"")
    assert status(If_Range=stage.tag, Range="bytes=0-1") == (206, CONTENT[:2])
    for other in ('"other"', f"W/{stage.tag}", "Sat, 21 Nov 2026 10:00:00 GMT"):
        assert status(If_Range=other, Range="bytes=0-1") == (200, CONTENT)


def test_every_changed_letter_of_a_link_is_refused(stage: Stage) -> None:
    path, _, query = stage.link.partition("?")
    exp, sig = (part.partition("=")[2] for part in query.split("&"))
    for bent_exp, bent_sig in [*((one, sig) for one in bent(exp)), *((exp, one) for one in bent(sig))]:
        got = stage.service.ask("GET", f"{path}?exp={bent_exp}&sig={bent_sig}", key="")
        assert (got.status, got.json()["code"]) == (403, "bad_signature")


def bent(text: str) -> list[str]:
    """The text with each of its letters changed, and with each left out."""
    changed = [text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :] for at in range(len(text))]
    return changed + [text[:at] + text[at + 1 :] for at in range(len(text))]


@pytest.mark.parametrize(
    "how",
    ["upper", "no exp", "no sig", "empty", "plus", "space", "nan", "negative", "float", "huge", "zero", "unicode"],
)
def test_a_link_bent_in_any_other_way_is_refused(stage: Stage, how: str) -> None:
    path, _, query = stage.link.partition("?")
    exp, sig = (part.partition("=")[2] for part in query.split("&"))
    bent = {
        "upper": f"exp={exp}&sig={sig.swapcase()}",
        "no exp": f"sig={sig}",
        "no sig": f"exp={exp}",
        "empty": "exp=&sig=",
        "plus": f"exp=%2B{exp}&sig={sig}",
        "space": f"exp={exp}%20&sig={sig}",
        "nan": f"exp=nan&sig={sig}",
        "negative": f"exp=-{exp}&sig={sig}",
        "float": f"exp={exp}.0&sig={sig}",
        "huge": f"exp={'9' * 400}&sig={sig}",
        "zero": f"exp=0{exp}&sig={sig}",
        "unicode": f"exp=%D9%A1{exp[1:]}&sig={sig}",
    }[how]
    assert stage.service.ask("GET", f"{path}?{bent}", key="").status == 403


def test_a_link_is_good_for_one_file_alone(stage: Stage) -> None:
    service, query = stage.service, stage.link.partition("?")[2]
    other = service.generate(stage.who)["id"]
    service.completed(other, png())
    body, headers = form(png())
    asset = service.ask("POST", "/api/v2/assets", key=stage.who.key, content=body, headers=headers).json()["id"]
    for path in (
        f"images/{other}/data",
        f"images/{stage.id}/poster",
        f"videos/{stage.id}/data",
        f"assets/{asset}/data",
    ):
        assert service.ask("GET", f"/api/v2/{path}?{query}", key="").status == 403, path
    assert service.ask("GET", f"/api/v2/images/{stage.id}?{query}", key="").status == 401
    assert service.ask("DELETE", f"/api/v2/generations/{stage.id}?{query}", key="").status == 401
    assert service.ask("GET", f"{stage.link}&exp=1", key="").status in (403, 422)
    assert service.ask("GET", f"{stage.link}&sig=x", key="").status in (403, 422)
    assert service.ask("GET", f"{stage.link}&download=1", key="").status == 422


def test_a_link_ends_when_it_says_and_lives_at_most_a_year(stage: Stage) -> None:
    ctx = stage.service.ctx
    expired = urlsplit(links.link(ctx, "images", stage.id, life_s=-10))
    got = stage.service.ask("GET", f"{expired.path}?{expired.query}", key="")
    assert (got.status, got.json()["code"]) == (410, "link_expired")
    for life_s in (60, 86_400, links.YEAR_S, links.YEAR_S * 50):
        ends = int(urlsplit(links.link(ctx, "images", stage.id, life_s=life_s)).query[4:].partition("&")[0])
        assert 0 < ends - ctx.now() / 1000 <= links.YEAR_S


def test_a_wrong_link_is_not_saved_by_a_right_key_and_a_stranger_gets_nothing(stage: Stage) -> None:
    assert stage.service.ask("GET", f"{stage.path}?exp=1&sig=x", key=stage.who.key).status == 403
    assert stage.service.ask("GET", stage.path, key="").status == 401
    assert stage.service.ask("GET", stage.path, key=stage.service.tenant().key).status == 404


def test_a_poster_is_a_picture_of_its_own(stage: Stage) -> None:
    got = stage.service.ask("GET", f"/api/v2/images/{stage.id}/poster", key=stage.who.key)
    assert (got.status, got.headers["content-type"], got.body) == (200, "image/jpeg", png(kind="JPEG"))
    assert got.headers["etag"] != stage.tag
    bare = stage.service.generate(stage.who)["id"]
    stage.service.completed(bare, png())
    assert stage.service.ask("GET", f"/api/v2/images/{bare}/poster", key=stage.who.key).status == 404


def test_what_is_not_finished_has_no_bytes_yet(stage: Stage) -> None:
    made = stage.service.generate(stage.who)["id"]
    for variant in ("data", "poster"):
        got = stage.service.ask("GET", f"/api/v2/images/{made}/{variant}", key=stage.who.key)
        assert (got.status, got.json()["code"]) == (409, "no_bytes")
    assert stage.service.ask("GET", f"/api/v2/videos/{made}/data", key=stage.who.key).status == 404


def test_a_file_that_is_missing_is_404_and_not_a_broken_answer(stage: Stage) -> None:
    made = stage.service.generate(stage.who)["id"]
    stage.service.completed(made, png())
    stage.service.run(stage.service.ctx.store.delete(f"{made}.png"))
    for method in ("GET", "HEAD"):
        got = stage.service.ask(method, f"/api/v2/images/{made}/data", key=stage.who.key)
        assert got.status == 404


@pytest.mark.parametrize(
    "path",
    [
        "images/../../../etc/passwd",
        "images/%2e%2e/data",
        "images/..%2f..%2fetc%2fpasswd/data",
        "images/%00/data",
        "images//data",
        "images/{id}%00/data",
        "images/{ID}/data",
        "images/{id}.png/data",
        "images/{id}/first",
        "videos/{id}/frame/first",
        "videos/{id}/frame/..%2f..",
        "assets/{id}/frame/middle",
    ],
)
def test_no_path_leads_anywhere_else(stage: Stage, path: str) -> None:
    got = stage.service.ask("GET", "/api/v2/" + path.format(id=stage.id, ID=stage.id.upper()), key=stage.service.admin)
    assert got.status == 404
