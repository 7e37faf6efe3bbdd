"""Films that are made here: cut to the picture, joined to one, whatever they are made of."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from films import film, seen, turned
from processes import children, resident_mb
from test_cage import good
from waiting import come_true

from backend.core.errors import InvalidMedia, MediaUnavailable, StorageFull
from backend.media import OUTPUT, WORKS, cage, upload
from backend.media.cage import Cage
from backend.media.inside import films as inside

PICTURE_S = 1 / 24


@pytest_asyncio.fixture
async def caged() -> AsyncIterator[Cage]:
    made = Cage()
    yield made
    await made.close()
    await come_true(lambda: not children(os.getpid()))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "made"


@pytest.mark.parametrize(
    ("kind", "codec", "pixels"),
    [("mp4", "libx264", "yuv420p"), ("mp4", "libx264", "yuv422p"), ("webm", "libvpx-vp9", "yuv420p"),
     ("mp4", "libx265", "yuv420p"), ("mp4", "libx265", "yuv420p10le"), ("mp4", "mpeg4", "yuv420p")],
)  # fmt: skip
async def test_a_trim_begins_and_ends_at_its_picture(
    caged: Cage, tmp_path: Path, target: Path, kind: str, codec: str, pixels: str
) -> None:
    path = film(tmp_path / "film", kind=kind, codec=codec, pixels=pixels, sound_s=2.0)
    found = await caged.trim(path, target, from_s=0.5, to_s=1.25)
    made = seen(target)
    assert (found.content_type, found.width, found.height, found.frames) == ("video/mp4", 160, 120, 18)
    assert found.duration_s == pytest.approx(0.75) == made.seconds
    assert (made.size, made.codec, made.rate, made.starts_fast) == ((160, 120), "h264", 24, True)
    assert made.times[0] == 0
    assert made.original_s(0) == pytest.approx(0.5, abs=PICTURE_S) and made.original_s(0.74) == pytest.approx(
        1.22, abs=0.05
    )
    assert made.sound_s == pytest.approx(0.75, abs=0.03) and all(made.loud[:-1])


async def test_a_trim_of_a_film_without_sound_has_none(caged: Cage, tmp_path: Path, target: Path) -> None:
    await caged.trim(film(tmp_path / "film"), target, from_s=0, to_s=1)
    assert (seen(target).seconds, seen(target).sound_s) == (1, None)


async def test_pictures_that_come_at_any_time_are_shown_as_long_as_they_were(
    caged: Cage, tmp_path: Path, target: Path
) -> None:
    path = film(tmp_path / "film", times=[0, 0.1, 0.5, 0.52, 0.9, 1.4, 1.45, 2.0])
    await caged.trim(path, target, from_s=0.3, to_s=1.9)
    made = seen(target)
    assert made.seconds == pytest.approx(1.6) and made.rate <= 60
    for at_s, shown_s in ((0, 0.1), (0.15, 0.1), (0.3, 0.52), (0.7, 0.9), (1.0, 0.9), (1.3, 1.45), (1.59, 1.45)):
        assert made.original_s(at_s) == pytest.approx(shown_s, abs=0.04), at_s


async def test_a_film_that_is_held_upright_stays_so(caged: Cage, tmp_path: Path, target: Path) -> None:
    path = turned(film(tmp_path / "film", size=(160, 90), seconds=1))
    assert (await caged.probe(path, place=OUTPUT)).width == 90
    found = await caged.trim(path, target, from_s=0, to_s=0.5)
    assert (found.width, found.height) == (90, 160)
    assert (seen(target).size, seen(target).rotation) == ((90, 160), 0)


async def test_a_film_of_an_odd_size_becomes_an_even_one(caged: Cage, tmp_path: Path, target: Path) -> None:
    path = film(tmp_path / "film", size=(161, 91), codec="libvpx-vp9", kind="webm", pixels="yuv444p", seconds=1)
    found = await caged.trim(path, target, from_s=0, to_s=0.5)
    assert (found.width, found.height) == (160, 90) == seen(target).size


@pytest.mark.parametrize(("from_s", "to_s"), [(1.0, 3.0), (5.0, 6.0)])
async def test_a_trim_beyond_the_end_is_refused(
    caged: Cage, tmp_path: Path, target: Path, from_s: float, to_s: float
) -> None:
    with pytest.raises(InvalidMedia, match="ends at second"):
        await caged.trim(film(tmp_path / "film"), target, from_s=from_s, to_s=to_s)
    assert not target.exists()


async def test_films_are_joined_at_the_size_and_rate_of_the_first_with_silence_where_one_has_no_sound(
    caged: Cage, tmp_path: Path, target: Path
) -> None:
    first = film(tmp_path / "1", seconds=1, sound_s=1)
    tall = film(tmp_path / "2", size=(100, 200), rate=30, seconds=1, codec="libvpx-vp9", kind="webm")
    mono = film(tmp_path / "3", size=(320, 90), rate=10, seconds=1, sound_s=1, sound_rate=22050, layout="mono")
    found = await caged.stitch([first, tall, mono], target)
    made = seen(target)
    assert found.duration_s == pytest.approx(3, abs=0.1) and made.seconds == found.duration_s
    assert (made.size, made.rate, made.codec, made.starts_fast) == ((160, 120), 24, "h264", True)
    for at_s, shown_s in ((0, 0), (0.9, 0.9), (1.1, 0), (1.9, 0.9), (2.2, 0.1), (2.9, 0.9)):
        assert made.original_s(at_s) == pytest.approx(shown_s, abs=0.13), at_s
    sides, above = (5, 60), (80, 5)
    assert made.grey(1.5, sides) < 5 < 50 < made.grey(1.5, above)  # the tall one
    assert made.grey(2.5, above) < 5 < 50 < made.grey(2.5, sides)  # the wide one
    assert made.sound_s == pytest.approx(made.seconds, abs=0.03)
    assert all(made.loud[:9]) and not any(made.loud[11:19]) and all(made.loud[22:29])


async def test_sound_does_not_drift_from_film_to_film(caged: Cage, tmp_path: Path, target: Path) -> None:
    short = film(tmp_path / "short", rate=30, seconds=0.5, sound_s=0.517)
    await caged.stitch([film(tmp_path / "first", seconds=0.25), *[short] * 20], target)
    made = seen(target)
    assert made.sound_s == pytest.approx(made.seconds, abs=0.03)


async def test_films_without_sound_make_one_without(caged: Cage, tmp_path: Path, target: Path) -> None:
    path = film(tmp_path / "film", seconds=0.5)
    await caged.stitch([path, path], target)
    assert (seen(target).seconds, seen(target).sound_s) == (1, None)


async def test_the_last_picture_stands_while_the_sound_goes_on(caged: Cage, tmp_path: Path, target: Path) -> None:
    longer = film(tmp_path / "longer", seconds=0.5, sound_s=1.5)
    await caged.stitch([longer, longer], target)
    made = seen(target)
    assert made.seconds == pytest.approx(3, abs=0.1)
    assert made.original_s(1.2) == pytest.approx(0.48, abs=0.05) and all(made.loud[:29])


async def test_the_film_that_cannot_be_read_is_named(caged: Cage, tmp_path: Path, target: Path) -> None:
    whole = film(tmp_path / "whole", seconds=0.5)
    broken = tmp_path / "broken"
    broken.write_bytes(whole.read_bytes()[:-1500])
    for second in (broken, good(tmp_path)):
        with pytest.raises(InvalidMedia, match="Film 2: "):
            await caged.stitch([whole, second], target)
        assert not target.exists()


async def test_a_film_with_noise_in_its_middle_is_refused_or_made_and_the_next_one_is_not_harmed(
    caged: Cage, tmp_path: Path, target: Path
) -> None:
    path = film(tmp_path / "film", sound_s=2.0)
    content = bytearray(path.read_bytes())
    content[600:1200] = os.urandom(600)
    (tmp_path / "bent").write_bytes(content)
    try:
        await caged.trim(tmp_path / "bent", target, from_s=0, to_s=1)
    except InvalidMedia as error:
        assert str(tmp_path) not in error.message and not target.exists()
    assert (await caged.trim(path, target, from_s=0, to_s=1)).frames == 24


async def test_a_film_that_takes_too_long_ends_with_its_process(
    caged: Cage, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cage, "WORK_S", 0.5)
    path = film(tmp_path / "film", size=(640, 480), seconds=6)
    with pytest.raises(InvalidMedia, match="more than 0 seconds"):
        await caged.stitch([path] * 10, target)
    assert not target.exists()
    await come_true(lambda: not children(os.getpid()))


async def test_a_stop_does_not_wait_for_a_film(
    caged: Cage, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cage, "STOP_S", 0.1)
    path = film(tmp_path / "film", size=(640, 480), seconds=6)
    work = asyncio.create_task(caged.stitch([path] * 30, target))
    await come_true(lambda: children(os.getpid()))
    caged.stop()
    with pytest.raises(MediaUnavailable, match="stopping"):
        await work
    assert not target.exists()


async def test_films_take_no_place_of_uploads_and_outputs_and_few_are_made_at_once(caged: Cage, tmp_path: Path) -> None:
    path = film(tmp_path / "film", size=(640, 480), seconds=4)
    work = [asyncio.create_task(caged.stitch([path] * 4, tmp_path / f"made{n}")) for n in range(WORKS + 2)]
    await come_true(lambda: children(os.getpid()))
    assert (await caged.probe(good(tmp_path), place=upload("a"))).width == 320
    assert (await caged.probe(good(tmp_path), place=OUTPUT)).width == 320
    assert len(children(os.getpid())) <= WORKS + 3  # those for uploads and outputs, and one that is ending
    for one in work:
        one.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    await come_true(lambda: not any((tmp_path / f"made{n}").exists() for n in range(WORKS + 2)))


async def test_a_film_that_is_longer_or_larger_than_one_may_be_is_refused(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "film")
    from backend.media.inside.trim import trim

    for name, most, words in (("MOST_S", 1, "longer than 0 minutes"), ("MOST_BYTES", 2000, "more than 0 MB")):
        with monkeypatch.context() as patch, path.open("rb") as file, target.open("w+b") as into:
            patch.setattr(inside, name, most)
            with pytest.raises(InvalidMedia, match=words):
                trim(file, into, from_s=0, to_s=2)


async def test_a_full_disk_is_no_fault_of_the_film(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.media.inside.trim import trim

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with film(tmp_path / "film").open("rb") as file, target.open("w+b") as into, monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageFull):
            trim(file, into, from_s=0, to_s=2)


async def test_memory_does_not_grow_with_the_length_of_a_film(caged: Cage, tmp_path: Path, target: Path) -> None:
    path = film(tmp_path / "film", size=(640, 360), seconds=2, sound_s=2)
    most: list[float] = []
    for count in (2, 12):
        work, most_mb = asyncio.create_task(caged.stitch([path] * count, target)), 0.0
        while not work.done():
            most_mb = max(most_mb, resident_mb(*children(os.getpid())))
            await asyncio.sleep(0.01)  # memory is measured as often as that
        assert work.result().duration_s == pytest.approx(2 * count, abs=0.1)
        most.append(most_mb)
        await come_true(lambda: not children(os.getpid()))
    assert most[1] < most[0] + 15, most
