"""Prices as rules: the first that holds is the price, some rule always does, and each one is of use."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_service import running
from test_catalog import FACTS

from backend.core.errors import SettingsError
from backend.core.model_files import parse
from backend.core.models import Model
from backend.providers.catalog import load

INPUTS = """
inputs.mode = { path = "mode", values = ["standard", "pro", "4k"], default = "standard" }
inputs.duration = { path = "duration", type = "integer", min = 3, max = 15, default = 5 }
inputs.audio = { path = "audio", type = "boolean", default = true }
inputs.width = { path = "width", type = "integer", min = 64, max = 4096, default = 1000 }
inputs.height = { path = "height", type = "integer", min = 64, max = 4096, default = 2000 }
inputs.size = { path = "size", values = ["1K", "2K"] }
references.image = { path = "image", excludes = ["video"] }
references.video = { path = "video", when = { mode = "pro" } }
references.first_frame = { path = "first", required = true }
references.last_frame = { path = "last", needs = ["image"] }
"""


def model(prices: str, inputs: str = INPUTS) -> Model:
    head = "[models.m]\nkind = 'video'\ncancel_after_s = 60\nfallback_prompt = 'p'\n"
    return parse({"p": f"{FACTS.format(order=1)}{head}{inputs}prices = [{prices}]\n"}).models["p", "m"]


MODES = """
  { when = { mode = "4k" }, per_second = 0.42 },
  { when = { mode = ["pro", "4k"], audio = true }, per_second = 0.336 },
  { when = { mode = "pro" }, per_second = 0.224 },
  { when = { audio = true }, per_second = 0.252 },
  { per_second = 0.168 },
"""
COSTS = [
    # prices, params, outputs -> millionths of a dollar
    ("{ per_output = 0.039 }", {}, 1, 39_000),
    ("{ per_output = 0.039 }", {}, 3, 117_000),
    ("{ per_run = 0.04 }", {}, 1, 40_000),
    ("{ per_run = 0.04 }", {}, 3, 40_000),
    ("{ per_second = 0.05 }", {}, 1, 250_000),
    ("{ per_second = 0.05 }", {"duration": 10}, 2, 1_000_000),
    ("{ per_megapixel = 0.01, megapixels = 1.5 }", {}, 2, 30_000),
    ("{ per_megapixel = 0.01 }", {}, 1, 20_000),
    ("{ per_megapixel = 0.01 }", {"width": 4000}, 1, 80_000),
    ("{ per_predict_second = 0.0014, typical_s = 12 }", {}, 3, 16_800),
    ("{ per_output = 0 }", {}, 3, 0),
    (MODES, {}, 1, 1_260_000),
    (MODES, {"audio": False}, 1, 840_000),
    (MODES, {"mode": "pro"}, 1, 1_680_000),
    (MODES, {"mode": "pro", "audio": False, "duration": 3}, 1, 672_000),
    (MODES, {"mode": "4k", "audio": True}, 1, 2_100_000),
]


@pytest.mark.parametrize(("prices", "params", "outputs", "micros"), COSTS)
def test_the_first_rule_that_holds_is_the_price(prices: str, params: dict[str, Any], outputs: int, micros: int) -> None:
    assert model(prices).cost_micros(params, outputs) == micros


BY_REFERENCE = """
  { when = { references = { video = true } }, per_run = 0.9 },
  { when = { references.image = true }, per_run = 0.2 },
  { per_run = 0.1 },
"""
GIVEN = [
    ({}, 100_000),
    ({"end_image": {"image_id": "a"}}, 100_000),
    ({"image_id": "a"}, 200_000),
    ({"asset_id": "a"}, 200_000),
]


@pytest.mark.parametrize(("source", "micros"), GIVEN)
def test_a_price_may_depend_on_what_is_given(source: dict[str, Any], micros: int) -> None:
    inputs = INPUTS.replace('references.first_frame = { path = "first", required = true }\n', "")
    assert model(BY_REFERENCE, inputs).cost_micros({}, source=source) == micros


def test_what_is_billed_by_time_is_so_by_the_rule_that_holds() -> None:
    known = model('{ when = { mode = "pro" }, per_predict_second = 0.01, typical_s = 5 }, { per_output = 0.1 }')
    assert (known.billed_micros(2.0, {"mode": "pro"}), known.billed_micros(2.0, {})) == (20_000, None)


def test_an_old_request_may_have_no_price() -> None:
    known = model('{ when = { mode = ["standard", "pro", "4k"] }, per_output = 0.1 }')
    assert known.cost_micros({"mode": "gone"}) is None and known.billed_micros(1.0, {"mode": "gone"}) is None


PRESENT = [
    ("google/nano-banana", {}, 39_000),
    ("google/nano-banana", {"aspect_ratio": "16:9"}, 39_000),
    ("kwaivgi/kling-v2.1", {}, 250_000),
    ("kwaivgi/kling-v2.1", {"duration": 10}, 500_000),
    ("kwaivgi/kling-v2.1", {"mode": "pro"}, 450_000),
    ("kwaivgi/kling-v2.1", {"mode": "pro", "duration": 10, "resolution": "1080p"}, 900_000),
]


@pytest.mark.parametrize(("name", "params", "micros"), PRESENT)
def test_the_models_there_are_cost_what_they_did(name: str, params: dict[str, Any], micros: int) -> None:
    found = load().models["replicate", name]
    assert (found.cost_micros(params), found.cost_micros(params, 2)) == (micros, 2 * micros)


WRONG = [
    ("", "no price holds for anything"),
    ("{ }", "the price 1 needs one of per_output, per_second"),
    ("{ per_output = 1, per_run = 1 }", "the price 1 needs one of per_output, per_second"),
    ("{ per_image = 1 }", "prices.0.per_image"),
    ("{ per_output = -0.1 }", "the price 1 is negative"),
    ("{ per_output = nan }", "prices.0.per_output"),
    ("{ per_output = inf }", "prices.0.per_output"),
    ("{ per_output = '1' }", "prices.0.per_output"),
    ("{ per_output = true }", "prices.0.per_output"),
    ("{ per_predict_second = 1 }", "the price 1 needs typical_s with per_predict_second, and only there"),
    ("{ per_predict_second = 1, typical_s = -1 }", "the price 1 is negative"),
    ("{ per_predict_second = 1, typical_s = 0 }", "the price 1 is for nothing"),
    ("{ per_output = 1, typical_s = 3 }", "the price 1 needs typical_s with per_predict_second, and only there"),
    ("{ per_output = 1, megapixels = 3 }", "the price 1 has megapixels, which belong to per_megapixel"),
    ("{ when = { colour = 'red' }, per_output = 1 }", "the price 1 is for colour red, which the model does not take"),
    ("{ when = { mode = 'prro' }, per_output = 1 }", "the price 1 is for mode prro, which the model does not take"),
    ("{ when = { mode = [] }, per_output = 1 }", "the price 1 is for mode nothing, which the model does not take"),
    ("{ when = { duration = 2 }, per_output = 1 }", "the price 1 is for duration 2, which the model does not take"),
    ("{ when = { audio = 1 }, per_output = 1 }", "the price 1 is for audio 1, which the model does not take"),
    (
        "{ when = { references = { mask = true } }, per_output = 1 }",
        "is for references.mask true, which the",
    ),
    ("{ when = { references = { video = 1 } }, per_output = 1 }", "is for references.video 1, which the"),
    ("{ when = 3, per_output = 1 }", "are tables"),
    ("3", "are tables"),
    # what no rule holds for
    ("{ when = { mode = ['pro', 'standard'] }, per_output = 1 }", "no price holds for mode 4k"),
    ("{ when = { duration = [3, 4] }, per_output = 1 }", "no price holds for duration another value"),
    ("{ when = { size = ['1K', '2K'] }, per_output = 1 }", "no price holds for size unsaid"),
    ("{ when = { audio = true }, per_output = 1 }", "no price holds for audio false"),
    (
        "{ when = { mode = 'pro' }, per_run = 1 }, { when = { mode = ['standard', '4k'], audio = true }, per_run = 1 }",
        "no price holds for mode standard, audio false",
    ),
    ("{ when = { references = { video = true } }, per_output = 1 }", "no price holds for references.video false"),
    # what never holds
    ("{ per_output = 1 }, { per_output = 2 }", "the price 2 never holds"),
    ("{ per_output = 1 }, { when = { mode = 'pro' }, per_output = 2 }", "the price 2 never holds"),
    (
        "{ when = { audio = true }, per_run = 1 }, { when = { audio = false }, per_run = 2 }, { per_run = 3 }",
        "the price 3 never holds",
    ),
    (
        "{ when = { references = { first_frame = false } }, per_run = 1 }, { per_run = 2 }",
        "the price 1 never holds",  # it is required, so it is always given
    ),
    (
        "{ when = { references = { video = true }, mode = '4k' }, per_run = 1 }, { per_run = 2 }",
        "the price 1 never holds",  # a video goes with mode pro alone
    ),
    (
        "{ when = { references = { video = true, image = true } }, per_run = 1 }, { per_run = 2 }",
        "the price 1 never holds",  # they exclude each other
    ),
    (
        "{ when = { references = { last_frame = true, image = false } }, per_run = 1 }, { per_run = 2 }",
        "the price 1 never holds",  # one needs the other
    ),
]


@pytest.mark.parametrize(("prices", "why"), WRONG)
def test_a_wrong_price_is_refused_when_the_file_is_read(prices: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        model(prices)
    assert refused.value.message.startswith("p/models.toml: m: ") and why in refused.value.message


LENGTHS = [
    "",
    "inputs.duration = { path = 'd', type = 'integer', min = 1, max = 5 }\n",  # no default
    "inputs.duration = { path = 'd', type = 'integer', max = 5, default = 5 }\n",
    "inputs.duration = { path = 'd', values = [-1, 5], default = 5 }\n",
]


@pytest.mark.parametrize("inputs", LENGTHS)
def test_a_price_by_the_second_needs_a_length_that_is_known(inputs: str) -> None:
    with pytest.raises(SettingsError, match="the price 1 is by the duration, and the model has no input duration"):
        model("{ per_second = 1 }", inputs)


def test_a_price_by_the_megapixel_needs_both_sides() -> None:
    with pytest.raises(SettingsError, match="the price 1 is by the height"):
        model("{ per_megapixel = 1 }", INPUTS.replace("inputs.height", "inputs.depth"))


def test_too_many_conditions_are_refused_and_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.core.catalog_price_checks.MOST_CASES", 3)
    with pytest.raises(SettingsError, match="tell more than 3 combinations apart"):
        model("{ when = { mode = 'pro', audio = true }, per_output = 1 }, { per_output = 2 }")


def test_a_request_without_a_known_price_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        who, known = service.tenant(), service.ctx.catalog
        key = ("replicate", "google/nano-banana")
        service.ctx.catalog = replace(known, models={**known.models, key: replace(known.models[key], prices=())})
        body = {"campaign_id": who.campaign_id, "prompt": "p"}
        answer = service.ask("POST", "/api/v2/generate/image", body, key=who.key)
        assert answer.status == 422
        assert answer.json()["errors"] == [
            {"field": "model", "message": "google/nano-banana has no known price for this"}
        ]


def test_the_example_on_the_page_is_a_list_of_prices() -> None:
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\nprices = \[\n(.*?)\]\n```", page, re.DOTALL)
    known = model(example)
    micros = known.cost_micros({"mode": "pro"}), known.cost_micros({}), known.cost_micros({"mode": "4k"})
    assert micros == (1_150_000, 500_000, 1_150_000)
