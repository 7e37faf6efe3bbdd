"""Roles of references: where each goes, which go together, and what a wrong one in the file is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from api_service import Service, Tenant, form, png, running
from test_catalog_inputs import model

from backend.core.errors import SettingsError
from backend.core.roles import conflict

RICH = """
inputs.mode = { path = "mode", values = ["standard", "pro"], default = "standard" }
inputs.audio = { path = "sound", type = "boolean", default = true }
references.first_frame = { path = "image", excludes = ["subject"] }
references.last_frame = { path = "media.last", needs = ["first_frame"], when = { mode = "pro", audio = [true, false] } }
references.subject = { path = "reference_images", list = true, max = 4 }
references.style = { path = "style" }
references.mask = { path = "mask", needs = ["style"] }
references.video = { path = "videos", list = true, excludes = ["first_frame", "last_frame"] }
references.audio = { path = "sounds", list = true, max = 3, needs = ["video"] }
"""
GIVEN = {"first_frame": "image_id", "last_frame": "end_image", "subject": "subjects", "style": "style"}
GIVEN |= {"mask": "mask", "video": "video", "audio": "audio"}
TOGETHER = [
    # roles, params -> the role that is refused, and why
    (["first_frame"], {}, None),
    (["first_frame", "last_frame"], {"mode": "pro"}, None),
    (["first_frame", "last_frame"], {}, ("last_frame", "needs mode pro and audio true or false")),
    (["last_frame"], {"mode": "pro"}, ("last_frame", "needs a first_frame too")),
    (["first_frame", "subject"], {}, ("first_frame", "does not go with subjects")),
    (["subject", "style", "mask"], {}, None),
    (["mask"], {}, ("mask", "needs a style too")),
    (["video", "first_frame"], {}, ("video", "does not go with image_id")),
    (["video", "audio", "subject"], {}, None),
    (["audio"], {}, ("audio", "needs a video too")),
    ([], {}, None),
]


@pytest.mark.parametrize(("roles", "params", "outcome"), TOGETHER)
def test_which_roles_go_together(roles: list[Any], params: dict[str, Any], outcome: tuple[str, str] | None) -> None:
    known = model(RICH)
    facts = known.defaults | params
    assert conflict(known.references, {role: GIVEN[role] for role in roles}, facts) == outcome


def test_a_required_role_is_missed() -> None:
    known = model('references.audio = { path = "sound", required = true }')
    assert conflict(known.references, {}, {}) == ("audio", "is needed")
    assert conflict(known.references, {"audio": "audio"}, {}) is None


def test_references_are_sent_where_their_roles_lead() -> None:
    urls: dict[Any, list[str]] = {"last_frame": ["l"], "subject": ["a"], "video": ["v", "w"], "style": []}
    urls |= {"image": ["not a role of this model"]}
    body = model(RICH).build("p", {}, urls)
    wanted = {"prompt": "p", "media": {"last": "l"}, "reference_images": ["a"], "videos": ["v", "w"]}
    assert body == wanted


STARTS = [
    ('references.image = { path = "i", list = true, max = 3 }', "image", False),
    ('references.image = { path = "i", required = true }', "image", True),
    ('references.image = { path = "i" }\nreferences.first_frame = { path = "f" }', "first_frame", False),
    ('references.subject = { path = "i", list = true }', None, False),
    ("", None, False),
]


@pytest.mark.parametrize(("lines", "role", "makes"), STARTS)
def test_a_plain_picture_is_what_a_video_starts_with(lines: str, role: str | None, makes: bool) -> None:
    known = model(lines)
    assert (known.start, known.makes_start_image) == (role, makes)
    assert set(known.given({"asset_id": "a", "end_image": {"image_id": "b"}})) == {role, "last_frame"} - {None}
    assert set(known.given({})) == ({role} if makes else set())


FILES = [
    ("image/png", 2_000_000, (100, 100), None),
    ("image/gif", 1, (1, 1), "is image/gif, and the model takes image/png, image/jpeg"),
    ("image/png", 2_000_001, (1, 1), "has more than 2 MB, which the model does not take"),
    ("image/png", 1, (101, 1), "has a side of more than 100 pixels, which the model does not take"),
    ("image/png", 1, (None, None), None),
]


@pytest.mark.parametrize(("content_type", "size", "sides", "why"), FILES)
def test_a_file_fits_by_its_format_its_bytes_and_its_sides(
    content_type: str, size: int, sides: tuple[int | None, int | None], why: str | None
) -> None:
    fields = 'path = "i", formats = ["image/png", "image/jpeg"], max_mb = 2, max_px = 100'
    assert model(f"references.image = {{ {fields} }}").references["image"].misfit(content_type, size, sides) == why


WRONG = [
    ('end_frame = { path = "x" }', "references.end_frame"),
    ('image = { path = "x", excludes = ["pose"] }', "references.image.excludes"),
    ('image = { path = "x", excludes = ["mask"] }', "the reference image excludes mask, which is no other reference"),
    ('image = { path = "x", needs = ["mask"] }', "the reference image needs mask, which is no other reference"),
    ('image = { path = "x", needs = ["image"] }', "the reference image needs image, which is no other reference"),
    ('image = { path = "x", needs = ["mask"], excludes = ["mask"] }\nreferences.mask = { path = "y" }', "never given"),
    ('image = { path = "x", excludes = ["mask"] }\nreferences.mask = { path = "y", required = true }', "never given"),
    ('image = { path = "x", max = 2 }', "has the max 2, which is for a list"),
    ('image = { path = "x", list = true, max = 0 }', "has the max 0"),
    ('image = { path = "x", formats = ["png"] }', "has the format png, which is no content type"),
    ('image = { path = "x", max_mb = 0 }', "max_mb and max_px are above 0"),
    ('image = { path = "x", when = { mode = "pro" } }', "is for mode pro, which the model does not take"),
    ('image = { path = "x", when = { prompt = 3 } }', "is for prompt 3, which the model does not take"),
    ('image = { path = "prompt" }', "the reference image and the input prompt have paths that overlap"),
    ('image = { path = "x" }\nreferences.mask = { path = "x" }', "the reference mask and the reference image"),
    ('image = { path = "x.y" }\nfixed = { x = { y = 1 } }', "the fixed x.y and the reference image"),
    ("image = 3", "are tables"),
]


@pytest.mark.parametrize(("lines", "why"), WRONG)
def test_a_wrong_role_is_refused_when_the_file_is_read(lines: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        model(f"references.{lines}")
    assert refused.value.message.startswith("p/models.toml: m: ") and why in refused.value.message


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("roles")) as found:
        yield found


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


def upload(service: Service, who: Tenant, **more: Any) -> str:
    body, headers = form(png(**more))
    return str(service.ask("POST", "/api/v2/assets", key=who.key, content=body, headers=headers).json()["id"])


def offer(service: Service, kind: str, lines: str) -> None:
    """One model more, at the provider that has a key."""
    made = replace(model(lines), provider="replicate", kind=kind)  # type: ignore[arg-type]
    known = service.ctx.catalog
    service.ctx.catalog = replace(known, models={**known.models, ("replicate", "m"): made})


REFUSED = [
    # kind, roles, the request -> the field, and why
    (
        "video",
        RICH,
        {"image_id": "made", "end_image": {"asset_id": "brought"}},
        "end_image",
        "needs mode pro and audio",
    ),
    ("video", RICH, {"end_image": {"asset_id": "brought"}, "mode": "pro"}, "end_image", "needs a first_frame too"),
    ("video", "", {"asset_id": "brought"}, "asset_id", "m starts from at most 0 images"),
    ("video", "", {"end_image": {"asset_id": "brought"}}, "end_image", "m takes none"),
    (
        "video",
        'references.first_frame = { path = "f", excludes = ["last_frame"] }\nreferences.last_frame = { path = "l" }',
        {"asset_id": "brought", "end_image": {"asset_id": "brought"}},
        "asset_id",
        "does not go with end_image",
    ),
    ("image", 'references.image = { path = "i", required = true }', {}, "image_id", "m starts from an image"),
    (
        "image",
        'references.audio = { path = "a", required = true }',
        {},
        "model",
        "needs a reference of the role audio",
    ),
    (
        "image",
        'references.image = { path = "i", formats = ["image/jpeg"] }',
        {"asset_id": "brought"},
        "asset_id",
        "is image/png, and the model takes image/jpeg",
    ),
    (
        "image",
        'references.image = { path = "i", max_px = 63 }',
        {"image_id": "made"},
        "image_id",
        "more than 63 pixels",
    ),
    (
        "video",
        'references.first_frame = { path = "f" }\nreferences.last_frame = { path = "l", max_px = 63 }',
        {"asset_id": "brought", "end_image": {"asset_id": "brought"}},
        "end_image.asset_id",
        "more than 63 pixels",
    ),
]


@pytest.mark.parametrize(("kind", "lines", "wanted", "field", "why"), REFUSED)
def test_a_request_that_no_model_takes_is_refused_before_it_is_kept(
    service: Service, who: Tenant, kind: str, lines: str, wanted: dict[str, Any], field: str, why: str
) -> None:
    offer(service, kind, lines)
    asset = upload(service, who)
    made = service.generate(who)["id"]
    service.completed(made, png())
    body = {"campaign_id": who.campaign_id, "prompt": "p", "model": "m", **wanted}
    for holder in (body, body.get("end_image") or {}):
        holder |= {name: asset if id == "brought" else made for name, id in holder.items() if id in ("brought", "made")}
    answer = service.ask("POST", f"/api/v2/generate/{kind}", body, key=who.key)
    assert answer.status == 422, answer.body
    (error,) = answer.json()["errors"]
    assert error["field"] == field and why in error["message"]
