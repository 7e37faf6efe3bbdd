"""Files to and from a provider that has no store for them, or sends them inside its answers."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from emulating import Provider, png
from PIL import Image
from toy_offered import Both, ask, beside, running
from toy_variants import AT_ONCE
from workshop import Workshop, working

from backend.core import filing
from backend.core.generation import FAILED, Failure
from backend.core.outcomes import Outcome
from backend.db import generations
from backend.db.connection import Tx
from backend.steps import inline, outcomes, references
from backend.upkeep import orphans, tidy

PUBLIC = "https://reelhook.example.com"
DATA_URI = {"kind": "output_data_uri"}
LEASE_S = 31


@pytest.fixture
def both(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    """Both providers, offered."""
    with beside(provider, monkeypatch.setattr) as both:
        yield both


@pytest.fixture
def bench(tmp_path: Path, both: Both) -> Iterator[Workshop]:
    """The service without a worker."""
    with working(tmp_path, both, worker=False) as bench:  # type: ignore[arg-type]
        yield bench


def noise(size: int) -> bytes:
    """A picture that no format makes small."""
    buffer = BytesIO()
    Image.frombytes("RGB", (size, size), os.urandom(size * size * 3)).save(buffer, "PNG")
    return buffer.getvalue()


def inside(bench: Workshop) -> list[str]:
    """The stored files that came inside an answer."""
    return sorted(path.name for path in (bench.folder / "media").rglob("*") if filing.is_inline(path.name))


def raw(bench: Workshop) -> str:
    """Every column of every generation, as the database has them."""
    with closing(sqlite3.connect(bench.folder / "reelhook.db")) as connection:
        return repr(connection.execute("SELECT * FROM generations").fetchall())


def to_storing(bench: Workshop, both: Both, id: str) -> None:
    """Ask about it when it has ended at the toy: its outputs are known."""
    both.hear(bench, id)
    assert bench.stage(id) == "storing"


# References


def test_a_small_reference_goes_inside_the_request_when_nobody_can_reach_us(bench: Workshop, both: Both) -> None:
    id = running(bench, asset_id=bench.upload(png((32, 32))))
    (create,) = both.toy.creates
    assert create["input"]["image"].startswith("data:image/png;base64,")
    both.end(bench, id, "completed")


def test_a_large_reference_is_refused_before_anything_is_paid(bench: Workshop, both: Both) -> None:
    id = ask(bench, asset_id=bench.upload(noise(96)))
    bench.submit_next()
    failed = bench.ended(id, "failed")
    assert failed["error"]["code"] == "source_failed" and failed["error"]["message"] == references._NO_WAY
    assert not failed["possibly_charged"] and both.toy.creates == []


def test_a_service_that_the_world_can_reach_sends_a_link(tmp_path: Path, both: Both) -> None:
    with working(tmp_path, both, worker=False, ngrok_url=PUBLIC, webhooks=False) as bench:  # type: ignore[arg-type]
        asset = bench.upload(noise(96))
        id = running(bench, asset_id=asset)
        (create,) = both.toy.creates
        assert create["input"]["image"].startswith(f"{PUBLIC}/api/v2/assets/{asset}/data?")
        assert "sig=" in urlsplit(create["input"]["image"]).query and create["webhook"] is None
        both.end(bench, id, "failed")  # the emulator has no way to that address


def test_an_output_that_needs_the_key_is_no_reference_by_its_url(bench: Workshop, both: Both) -> None:
    image = running(bench)
    both.end(bench, image, "completed")
    with closing(sqlite3.connect(bench.folder / "reelhook.db")) as connection, connection:
        fresh = "UPDATE generations SET outputs_expire_at = ? WHERE id = ?"
        connection.execute(fresh, (bench.clock() + 3_600_000, image))
    film = ask(bench, "video", image_id=image)
    bench.submit_next()
    assert bench.ended(film, "failed")["error"]["code"] == "source_failed", "it is too large to go inside the request"
    assert len(both.toy.creates) == 1


# Files that come inside an answer


def test_a_file_inside_an_answer_is_stored_once_and_stands_in_no_row(bench: Workshop, both: Both) -> None:
    both.toy.spoil(DATA_URI)
    id = running(bench)
    to_storing(bench, both, id)
    assert [filing.INLINE + name for name in inside(bench)] == bench.row(id).outputs
    assert "base64" not in raw(bench)
    both.end(bench, id, "completed")
    bench.run(tidy.empty_trash(bench.ctx))
    assert inside(bench) == [] and both.toy.ledger["downloads"] == 0
    assert "base64" not in raw(bench)


@pytest.mark.parametrize("faults", [[DATA_URI], []], ids=["inside", "by URL"])
def test_a_create_may_answer_with_the_result(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch, faults: list[Any]
) -> None:
    with beside(provider, monkeypatch.setattr, description=AT_ONCE) as both:
        both.toy.spoil(*faults)
        with working(tmp_path, both, worker=False) as bench:  # type: ignore[arg-type]
            id = ask(bench)
            bench.submit_next()
            assert bench.stage(id) == "storing" and len(inside(bench)) == len(faults)
            assert "base64" not in raw(bench)
            both.end(bench, id, "completed")
            bench.run(tidy.empty_trash(bench.ctx))
            assert inside(bench) == [] and both.toy.ledger["gets"] == 0


def test_a_crash_between_the_file_and_the_row_leaves_it_to_the_sweep(
    bench: Workshop, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "SETTLE_S", 0.0)
    both.toy.spoil(DATA_URI)
    id = running(bench)

    async def crash(*_: Any, **__: Any) -> str:
        raise SystemError

    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(outcomes, "learn", crash)
        to_storing(bench, both, id)
    assert len(inside(bench)) == 1 and bench.stage(id) == "processing"
    bench.clock.forward(LEASE_S)
    both.end(bench, id, "completed")
    bench.run(tidy.empty_trash(bench.ctx))
    assert len(inside(bench)) == 1
    assert bench.run(orphans.sweep_orphans(bench.ctx)).removed == 1
    assert inside(bench) == []


def test_a_file_for_a_row_that_has_ended_meanwhile_is_removed(
    bench: Workshop, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    both.toy.spoil(DATA_URI)
    id = running(bench)
    keep, failure = inline.keep, Failure("timed_out", "It was too late.", retryable=True)

    async def end_it(tx: Tx) -> None:
        await generations.move(tx, id, FAILED, now=bench.clock(), failure=failure, possibly_charged=True)

    async def keep_too_late(ctx: Any, id: str, outcome: Outcome) -> Outcome:
        kept = await keep(ctx, id, outcome)
        if inline.has_files(outcome):
            await ctx.db.write(end_it)
        return kept

    monkeypatch.setattr(inline, "keep", keep_too_late)
    both.hear(bench, id)
    assert bench.stage(id) == "failed" and len(inside(bench)) == 1
    bench.run(tidy.empty_trash(bench.ctx))
    assert inside(bench) == []


def test_a_provider_cannot_name_a_file_of_ours(bench: Workshop, both: Both) -> None:
    both.toy.spoil({"kind": "output_other_host", "url": "stored:/etc/passwd"})
    id = running(bench)
    failed = both.end(bench, id, "failed")
    assert failed["error"]["code"] == "output_invalid"
    assert filing.inline_names(["stored:/x", "stored:/a-inline-b.bin", f"stored:{id}.png"]) == []


# Outputs of which nobody says how long they are there


def test_an_output_without_an_end_is_tried_for_a_day_after_the_deadline(bench: Workshop, both: Both) -> None:
    both.toy.spoil({"kind": "output_404", "status": 503})
    id = running(bench)
    to_storing(bench, both, id)
    assert bench.row(id).outputs_expire_at is None
    for _ in range(22):
        bench.clock.forward(3600)
        bench.look("storing")
        assert bench.stage(id) == "storing"
    both.toy.spoil()
    both.end(bench, id, "completed")


def test_an_output_without_an_end_is_given_up_when_its_day_is_over(bench: Workshop, both: Both) -> None:
    both.toy.spoil({"kind": "output_404", "status": 503})
    id = running(bench)
    to_storing(bench, both, id)
    bench.clock.forward(25 * 3600)
    bench.look("storing")
    failed = bench.ended(id, "failed")
    assert failed["error"]["code"] == "provider_unavailable" and failed["possibly_charged"]


def test_a_first_404_is_no_end_of_an_output(bench: Workshop, both: Both) -> None:
    both.toy.spoil({"kind": "output_404", "times": 2})
    id = running(bench)
    to_storing(bench, both, id)
    bench.look("storing")
    assert bench.stage(id) == "storing"
    both.end(bench, id, "completed")
