"""The toy provider in the whole service, beside Replicate: its account and its models, as if it had a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toy_provider
from emulating import Provider, together, until
from toy_emulator import TOY, Toy, start
from workshop import Workshop

from backend.config import Settings
from backend.core.catalog import ProviderFacts
from backend.core.model_files import parse
from backend.emulator.kit.provider import Provider as Description
from backend.providers import base, catalog, registry
from backend.providers.base import Means

MODELS = Path(__file__).with_name("toy_models.toml")
Build = Callable[[Means, ProviderFacts, str], base.Provider]
Set = Callable[[Any, str, Any], None]


@dataclass
class Both:
    """Replicate and the toy, as one ledger of what was paid."""

    replicate: Provider
    toy: Toy

    @property
    def server(self) -> Any:
        return self.replicate.server

    @property
    def ledger(self) -> dict[str, Any]:
        return together(self.replicate.ledger, self.toy.ledger)

    def sent(self, prompt: str) -> list[dict[str, Any]]:
        """The creates with this prompt that came to the toy, which is told of no generation's id."""
        return [create for create in self.toy.creates if create["input"]["prompt"] == prompt]

    def has_made(self, bench: Workshop, id: str) -> bool:
        """Whether the toy's run of this generation has ended."""
        ended = {end["prediction_id"] for end in self.toy.ledger["ends"]}
        return bench.row(id).provider_id in ended

    def hear(self, bench: Workshop, id: str) -> None:
        """Wait until the run has ended, and ask about it: the clock does not run while it works."""
        until(lambda: self.has_made(bench, id))
        bench.clock.forward(11)
        bench.look("processing")

    def end(self, bench: Workshop, id: str, status: str) -> dict[str, Any]:
        """Hear of the end and store what was made, until the generation has ended so."""

        def step() -> bool:
            bench.look("storing")
            if bench.stage(id) == "processing":
                self.hear(bench, id)
            elif bench.stage(id) == "storing":
                bench.clock.forward(11)
            return bench.get(id)["status"] not in ("pending", "processing")

        until(step)
        return bench.ended(id, status)


def offer(put: Set, origin: str, build: Build = toy_provider.build) -> None:
    """Have every service that starts from now on offer the toy at this origin."""
    known, offered = catalog.files(Path(catalog.__file__).parent), registry.offered
    both = parse(known | {"toy": MODELS.read_text("utf-8")})

    def with_the_toy(settings: Settings, means: Means, facts: Mapping[str, ProviderFacts]) -> dict[str, base.Provider]:
        return offered(settings, means, facts) | {"toy": build(means, facts["toy"], origin)}

    put(catalog, "load", lambda: both)
    put(registry, "offered", with_the_toy)


@contextmanager
def beside(
    provider: Provider, put: Set, *, description: Description = TOY, build: Build = toy_provider.build
) -> Iterator[Both]:
    """A toy's emulator; whatever service starts meanwhile offers it beside this Replicate."""
    with start(description=description) as toy:
        offer(put, toy.origin, build)
        yield Both(provider, toy)


def ask(bench: Workshop, kind: str = "image", **wanted: Any) -> str:
    """One generation of the toy's."""
    return str(bench.ask(kind, provider="toy", **wanted)["id"])


def running(bench: Workshop, kind: str = "image", **wanted: Any) -> str:
    """One that the toy has taken."""
    id = ask(bench, kind, **wanted)
    bench.submit_next()
    bench.reach(id, "processing")
    return id
