"""Requests that name a model which two providers offer."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, running

from backend.core.inputs import Input
from backend.core.prices import Rule

IMAGE, VIDEO = "google/nano-banana", "kwaivgi/kling-v2.1"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Beside `replicate` there is a second provider, `twin`, with the same image model from another source."""
    with running(tmp_path) as found:
        known = found.ctx.catalog
        other = replace(
            known.models["replicate", IMAGE], provider="twin", source="twin's page", prices=(Rule(per_output=1),)
        )
        models, facts = {**known.models, ("twin", IMAGE): other}, known.providers["replicate"]
        found.ctx.catalog = replace(known, models=models, providers={**known.providers, "twin": facts})
        twin: Any = copy(found.ctx.providers["replicate"])
        twin.name = "twin"
        found.ctx.providers = {**found.ctx.providers, "twin": twin}
        yield found


def test_without_a_provider_the_first_is_taken_and_another_when_it_has_no_key(service: Service) -> None:
    who = service.tenant()
    first = service.generate(who, model=IMAGE)
    asked = service.generate(who, model=IMAGE, provider="twin")
    service.ctx.providers = {"twin": service.ctx.providers["twin"]}
    left = service.generate(who, model=IMAGE)
    assert [one["provider"] for one in (first, asked, left)] == ["replicate", "twin", "twin"]
    assert [one["cost_usd"]["estimated"] for one in (first, asked, left)] == [0.039, 1, 1]


def test_usage_tells_the_source_of_each_price_that_was_used(service: Service) -> None:
    who = service.tenant()
    service.generate(who, model=IMAGE, provider="twin")
    told = service.ask("GET", "/api/v2/usage").json()["prices"]
    assert [(one["model"], one["source"]) for one in told] == [(IMAGE, "twin's page")]
    service.generate(who, model=IMAGE)
    assert len(service.ask("GET", "/api/v2/usage?group_by=model").json()["prices"]) == 2
    assert len(service.ask("GET", "/api/v2/usage?group_by=model").json()["items"]) == 1


def test_openai_lists_a_name_once(service: Service) -> None:
    who = service.tenant()
    listed = service.ask("GET", "/v1/models", key=who.key).json()["data"]
    assert [(one["id"], one["owned_by"]) for one in listed] == [(IMAGE, "replicate"), (VIDEO, "replicate")]
    service.ctx.providers = {"twin": service.ctx.providers["twin"]}
    assert service.ask("GET", f"/v1/models/{IMAGE}", key=who.key).json()["owned_by"] == "twin"


def test_a_start_image_is_asked_for_as_its_own_model_takes_it(service: Service) -> None:
    """With that model's defaults, which its price counts, and no longer a prompt than it takes."""
    who, known = service.tenant(), service.ctx.catalog
    image = known.models["replicate", IMAGE]
    inputs = {
        **image.inputs,
        "prompt": replace(image.inputs["prompt"], max_chars=20),
        "quality": Input("quality", values={"low": "l", "high": "h"}, default="high"),
    }
    prices = (Rule(when={"quality": ("high",)}, per_output=0.5), Rule(per_output=0.1))
    made = replace(image, inputs=inputs, prices=prices, fallback_prompt="p")
    service.ctx.catalog = replace(known, models={**known.models, ("replicate", IMAGE): made})
    video = service.generate(who, "video", prompt="it climbs")
    start = service.ask("GET", f"/api/v2/generations/{video['source']['image_id']}", key=who.key).json()
    assert (start["params"], start["cost_usd"]["estimated"]) == ({"quality": "high", "aspect_ratio": "16:9"}, 0.5)
    body = {"campaign_id": who.campaign_id, "prompt": "it climbs and climbs and climbs"}
    refused = service.ask("POST", "/api/v2/generate/video", body, key=who.key)
    assert refused.status == 422 and refused.json()["errors"][0]["field"] == "prompt"
