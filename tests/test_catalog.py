"""The catalog: which model a request gets, when several providers offer it, and what a wrong file is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.core.catalog import Catalog
from backend.core.errors import InvalidInput, SettingsError
from backend.core.model_files import parse
from backend.providers.catalog import files, load

FACTS = """
[provider]
order = {order}
output_lifetime_s = 3600
output_hosts = ["files.example"]
file_limit_mb = 100
data_uri_limit_kb = 256
run_limit_s = 1800
"""
MODEL = """
[models."{name}"]
kind = "{kind}"
cancel_after_s = 60
fallback_prompt = "p"
prices = [{{ per_output = 0.01 }}]
{more}
"""


def file(*models: tuple[Any, ...], order: int = 1) -> str:
    """A provider's models.toml; each model as its name, its kind and more lines."""
    made = (MODEL.format(name=name, kind=kind, more="\n".join(more)) for name, kind, *more in models)
    return FACTS.format(order=order) + "".join(made)


def three() -> Catalog:
    """Three providers; the folders' names are not in the order of the providers."""
    return parse(
        {
            "alpha": file(("a/same", "video"), ("a/only", "image", "default = true"), order=3),
            "beta": file(("a/same", "image"), ("a/old", "image", "retired = true"), order=1),
            "gamma": file(("a/same", "image", "default = true"), ("a/old", "image"), order=2),
        }
    )


ALL = ("alpha", "beta", "gamma")
CHOICES = [
    # kind, model, provider, those with a key -> provider and name
    ("image", "a/same", None, ALL, ("beta", "a/same")),  # the first of the providers
    ("image", "a/same", None, ("gamma", "alpha"), ("gamma", "a/same")),  # the first that has a key
    ("image", "a/same", "gamma", ALL, ("gamma", "a/same")),
    ("video", "a/same", None, ALL, ("alpha", "a/same")),  # the first of this kind
    ("image", "a/old", None, ALL, ("gamma", "a/old")),  # not the one that was retired
    ("image", None, None, ALL, ("gamma", "a/same")),
    ("image", None, None, ("alpha",), ("alpha", "a/only")),
    ("image", None, "alpha", ALL, ("alpha", "a/only")),
]


@pytest.mark.parametrize(("kind", "name", "provider", "keys", "chosen"), CHOICES)
def test_a_request_gets_the_first_that_is_offered(
    kind: Any, name: str | None, provider: str | None, keys: tuple[str, ...], chosen: tuple[str, str]
) -> None:
    found = three().choose(kind, name, provider, keys)
    assert (found.provider, found.name) == chosen and found.kind == kind


REFUSALS = [
    ("video", "a/only", None, ALL, "model", "is not known; for this kind there are a/same"),
    ("image", "a/none", None, ALL, "model", "there are a/same, a/old, a/only"),
    ("image", "a/only", "beta", ALL, "model", "is not known"),
    ("image", None, "beta", ALL, "model", "is not known"),
    ("image", "a/old", "beta", ALL, "model", "was retired by its provider"),
    ("image", "a/same", "beta", ("gamma",), "provider", "is not offered here"),
    ("image", "a/same", None, ("alpha",), "provider", "beta is not offered here: it has no key"),
    ("image", "a/old", None, ("alpha", "beta"), "provider", "gamma is not offered here: it has no key"),
    ("video", None, None, ALL, "model", "is not known"),  # no default of this kind
]


@pytest.mark.parametrize(("kind", "name", "provider", "keys", "field", "why"), REFUSALS)
def test_what_cannot_be_chosen_is_refused_with_its_reason(
    kind: Any, name: str | None, provider: str | None, keys: tuple[str, ...], field: str, why: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        three().choose(kind, name, provider, keys)
    (error,) = refused.value.errors or []
    assert error["field"] == field and why in error["message"]


def test_models_and_providers_come_in_the_order_of_the_providers() -> None:
    known = three()
    assert list(known.providers) == ["beta", "gamma", "alpha"]
    assert [name for _, name in known.models] == ["a/same", "a/old", "a/same", "a/old", "a/same", "a/only"]
    assert [one.provider for one in known.offered(ALL)] == ["beta", "gamma", "gamma", "alpha", "alpha"]


def test_the_same_name_is_another_model_at_another_provider() -> None:
    known = three()
    assert (known.model("alpha", "a/same") or known).kind == "video"  # type: ignore[union-attr]
    assert (known.model("beta", "a/same") or known).kind == "image"  # type: ignore[union-attr]
    assert known.model("beta", "a/only") is None and known.model("nobody", "a/same") is None


def test_each_folder_with_a_file_is_a_provider(tmp_path: Path) -> None:
    for name in ("one", "two", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "models.toml").write_text(file(("m", "image")))
    (tmp_path / "two" / "models.toml").write_text(file(("m", "image")))
    (tmp_path / "models.toml").write_text("not a provider's")
    assert set(parse(files(tmp_path)).models) == {("one", "m"), ("two", "m")}


def test_the_installed_files_are_in_order() -> None:
    assert list(load().models) == [("replicate", "google/nano-banana"), ("replicate", "kwaivgi/kling-v2.1")]


WRONG = [
    ("[provider", "Expected"),
    ("[models.m]", "provider: output_lifetime_s"),
    (file().replace('["files.example"]', "3"), "provider: output_hosts"),
    (file() + "[more]", r"has \[more\]"),
    (file(("m", "image", "colour = 1")), "m: colour"),
    (file(("m", "image", "cancel_after_s = '60'")).replace("cancel_after_s = 60\n", ""), "m: cancel_after_s"),
    (file(("m", "sound")), "m: kind"),
    ("models = 3\n" + file(), r"\[models\] is a table"),
    ("models.m = 3\n" + file(), "m: the model, and each of its inputs"),
    (file(("m", "image", "provider = 'p'")), "m: provider: is said by the table's name"),
    (file(("m", "image")).replace("cancel_after_s = 60", "cancel_after_s = 0"), "m: its cancel_after_s is not above 0"),
    (file(("m", "image", "on_cancel = 'perhaps'")), "m: on_cancel"),
    (file(("m", "image", "inputs.mode = 3")), "m: the model, and each of its inputs"),
    (file(("m", "image", "default = true"), ("n", "image", "default = true")), "n: is the second default for images"),
]


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_a_wrong_file_is_refused_with_its_name(text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=rf"^p/models\.toml: .*{why}"):
        parse({"p": text})
