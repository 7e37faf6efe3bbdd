"""What a model takes of ours, what is sent of it, and what a wrong input in the file is told."""

from __future__ import annotations

from typing import Any

import pytest
from test_catalog import file

from backend.core.errors import InvalidInput, SettingsError
from backend.core.model_files import parse
from backend.core.models import Model, shorter_side


def model(*lines: str) -> Model:
    return parse({"p": file(("m", "video", *lines))}).models["p", "m"]


RICH = """
fixed = { format = "mp4", parameters = { sampleCount = 1 } }
inputs.duration = { path = "parameters.durationSeconds", type = "integer", min = 3, max = 15, default = 4 }
inputs.strength = { path = "strength", type = "number", min = 0.5 }
inputs.audio = { path = "parameters.generateAudio", type = "boolean", default = true }
inputs.mode = { path = "quality", values = { draft = "low", final = "high" }, default = "draft" }
inputs.frames = { path = "frames", type = "integer", values = { 24 = "24fps", 30 = "30fps" } }
inputs.steps = { path = "steps", values = [1, 2.5] }
inputs.prompt = { path = "text", max_chars = 5 }
inputs.negative_prompt = { path = "parameters.not", max_chars = 3 }
"""

CHECKS = [
    # our field, our value, what is sent; an error instead where the value is refused
    ("duration", 3, 3),
    ("duration", 15, 15),
    ("duration", 2, "m takes 3 to 15"),
    ("duration", 16, "m takes 3 to 15"),
    ("duration", 5.0, "must be a whole number"),
    ("duration", "5", "must be a whole number"),
    ("duration", True, "must be a whole number"),
    ("strength", 0.5, 0.5),
    ("strength", 1, 1),
    ("strength", 0.4, "m takes 0.5 or more"),
    ("strength", True, "must be a number"),
    ("audio", False, False),
    ("audio", 1, "must be true or false"),
    ("audio", "true", "must be true or false"),
    ("mode", "final", "high"),
    ("mode", "high", "m takes draft, final"),
    ("frames", 24, "24fps"),
    ("frames", "24", "m takes 24, 30"),
    ("steps", 1, 1),
    ("steps", 2.5, 2.5),
    ("steps", True, "m takes 1, 2.5"),
    ("prompt", "12345", "12345"),
    ("prompt", "123456", "at most 5 characters"),
    ("negative_prompt", "1234", "at most 3 characters"),
    ("negative_prompt", 1, "must be a text"),
    ("colour", "red", "m has no such setting"),
]


@pytest.mark.parametrize(("ours", "value", "outcome"), CHECKS)
def test_a_value_is_sent_in_the_providers_words_or_refused(ours: str, value: Any, outcome: Any) -> None:
    known = model(RICH)
    if " " in str(outcome):
        with pytest.raises(InvalidInput) as refused:
            known.check(ours, value)
        assert refused.value.errors == [{"field": ours, "message": outcome}]
    else:
        known.check(ours, value)
        assert known.inputs[ours].theirs(value) == outcome


def test_what_is_sent_goes_where_the_path_leads() -> None:
    known = model(RICH)
    body = known.build("a boat", {"duration": 8, "audio": False, "mode": "final", "unknown": 1})
    assert body == {
        "format": "mp4",
        "parameters": {"sampleCount": 1, "durationSeconds": 8, "generateAudio": False},
        "quality": "high",
        "text": "a boat",
    }
    assert known.fixed["parameters"] == {"sampleCount": 1}  # what is built never changes the catalog
    assert known.defaults == {"duration": 4, "audio": True, "mode": "draft"}


@pytest.mark.parametrize(("wanted", "nearest"), [(1, 3), (8, 8), (60, 15)])
def test_the_nearest_length_lies_within_the_range(wanted: int, nearest: int) -> None:
    assert model(RICH).inputs["duration"].nearest(wanted) == nearest


@pytest.mark.parametrize(
    ("name", "side"), [("720p", 720), ("1080p", 1080), ("4k", 2160), ("2 K", 1080), ("high", None)]
)
def test_a_resolution_tells_its_shorter_side(name: str, side: int | None) -> None:
    assert shorter_side(name) == side


def test_a_resolution_is_an_input_or_is_made_by_others() -> None:
    own = model('inputs.resolution = { path = "r", values = ["720p", "4k"] }')
    assert own.sizes == {"720p": {"resolution": "720p"}, "4k": {"resolution": "4k"}}
    made = model('inputs.mode = { path = "m", values = ["a", "b"] }', 'resolutions = { "720p" = { mode = "a" } }')
    assert made.sizes == {"720p": {"mode": "a"}}


WRONG = [
    ("path = 'a', default = 3", "the input x has the default 3, which it does not take: must be a text"),
    ("path = 'a', values = ['b', 'c'], default = 'd'", "has the default 'd', which it does not take: m takes b, c"),
    (
        "path = 'a', type = 'integer', min = 1, max = 3, default = 4",
        "which it does not take: m takes 1 to 3",
    ),
    ("path = 'a', max_chars = 2, default = 'abc'", "default 'abc', which it does not take: at most 2 characters"),
    ("path = 'a', type = 'integer', min = 5, max = 3", "has a min 5 above its max 3"),
    ("path = 'a', min = 5", "has min or max, which belong to an input without values"),
    ("path = 'a', values = [1, 2], max = 3", "has min or max, which belong to an input without values"),
    ("path = 'a', type = 'number', max = nan", "inputs.x.max"),
    ("path = 'a', values = ['b', 1]", "has the value 1, which is not of its type text"),
    ("path = 'a', values = [{}]", "are tables"),
    ("path = 'a', type = 'integer', values = { b = 1 }", "has the value 'b', which is not of its type integer"),
    ("path = 'a', values = []", "inputs.x.values"),
    ("path = 'a', max_chars = 0", "max_chars is below 1"),
    ("path = 'a', colour = 'red'", "inputs.x.colour"),
    ("path = 'a', type = 'integer', min = '1'", "inputs.x.min"),
    ("default = 1", "inputs.x.path"),
    ("path = 'a..b'", "has the path 'a..b', which has an empty part"),
    ("path = 'prompt'", "the input x and the input prompt have paths that overlap: prompt and prompt"),
    ("path = 'prompt.inner'", "paths that overlap: prompt.inner and prompt"),
]


@pytest.mark.parametrize(("fields", "why"), WRONG)
def test_a_wrong_input_is_refused_when_the_file_is_read(fields: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        model(f"inputs.x = {{ {fields} }}")
    assert refused.value.message.startswith("p/models.toml: m: ") and why in refused.value.message


WRONG_MODELS = [
    ('resolutions = { "720p" = { mode = "a" } }', "the resolution 720p needs mode a, which the model does not take"),
    ("inputs.prompt = { path = 'prompt', max_chars = 0 }", "max_chars is below 1"),
    ("inputs.prompt = { path = 'prompt', default = 'x' }", "has a default, which is the fallback_prompt's place"),
    ("inputs.duration = { path = 'd', values = ['5', '10'] }", "has the type text, and requests give it as integer"),
    ("inputs.resolution = { path = 'r', values = [720] }", "has the type integer, and requests give it as text"),
    (
        "fallback_prompt = 'long'\ninputs.prompt = { path = 'prompt', max_chars = 2 }",
        "the fallback_prompt does not fit",
    ),
]


@pytest.mark.parametrize(("lines", "why"), WRONG_MODELS)
def test_a_wrong_model_is_refused_when_the_file_is_read(lines: str, why: str) -> None:
    text = file(("m", "video", lines))
    with pytest.raises(SettingsError, match=why):
        parse({"p": text.replace('fallback_prompt = "p"\n', "", "fallback_prompt = 'long'" in lines)})
