"""The cage: strangers' files are decoded in child processes that can do nothing else. This is the service's side.

A child is used for one file after the other, as a start costs more than a picture does. It is not used again after a
file that it refused or was slow with. Whatever ends a child is an answer about its file: `InvalidMedia`. A thread in
the service could not be ended, and a film of 1 MB once took 4.8 GB of memory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from backend.core.errors import InvalidMedia, MediaUnavailable
from backend.disk import room
from backend.media import answers
from backend.media.child import Died
from backend.media.crew import Crew
from backend.media.kinds import HEAD_BYTES, Probe, sniff
from backend.media.places import OUTPUT, WORK, Place, Places
from backend.media.threads import in_thread

LOOK_S = 12.0  # for one file; with the wait for a place no answer takes half a minute
MORE_S_PER_MB = 0.05
LONGEST_S = 18.0
WORK_S = 540.0  # for a film that is made
STOP_S = 2.0  # how long what clients brought is still looked at when the service stops


class Cage:
    """The children of one service process. Those for outputs, which are paid for, never see an upload."""

    def __init__(self) -> None:
        self._places = Places()
        self._crews = {True: Crew(), False: Crew()}  # by whether they are for uploads
        self._makers = Crew("films", spare=0)
        self._clocks: set[asyncio.Timeout] = set()
        self._stopping = False

    async def probe(self, path: Path, *, place: Place) -> Probe:
        """Return what a file is. It is decoded as far as needed to know that it is whole.

        Like all methods here it raises InvalidMedia, whatever the file does, and MediaUnavailable when the file is not
        the reason.
        """
        return await self._look(place, path, None, work="probe")

    async def inspect(self, path: Path, target: Path, *, place: Place) -> Probe:
        """Probe a file and write its poster from the same decoding; sound has none. Raises StorageFull."""
        return await self._look(place, path, target, work="inspect")

    async def poster(self, path: Path, target: Path, *, place: Place) -> Probe:
        """Write a small JPEG of an image, or of a video near its beginning. Raises StorageFull."""
        return await self._look(place, path, target, work="poster")

    async def frame(self, path: Path, target: Path, *, which: Literal["first", "last"], place: Place) -> Probe:
        """Write the first or the very last picture of a video as a JPEG of full size. Raises StorageFull."""
        return await self._look(place, path, target, work="frame", which=which)

    async def trim(self, path: Path, target: Path, *, from_s: float, to_s: float) -> Probe:
        """Write the part of a film between two seconds as an MP4, its sound too. Raises StorageFull."""
        return await self._make([path], target, work="trim", from_s=from_s, to_s=to_s)

    async def stitch(self, paths: Sequence[Path], target: Path) -> Probe:
        """Write up to MOST_FILMS films one after the other as an MP4 of the first one's size. Raises StorageFull."""
        return await self._make(paths, target, work="stitch")

    async def warm(self) -> list[str]:
        """Start a child of each kind; return what the system denies to them, in words. Raises MediaUnavailable."""
        holds: list[str] = []
        for crew in self._crews.values():
            async with crew.member() as child:
                holds = child.holds
        return holds

    def stop(self) -> None:
        """Give uploads and films STOP_S more, as the service stops. Outputs are finished, since they are paid for."""
        self._stopping = True
        ends_at = asyncio.get_running_loop().time() + STOP_S
        for clock in self._clocks:
            clock.reschedule(ends_at)

    async def close(self) -> None:
        """End all children."""
        for crew in (*self._crews.values(), self._makers):
            await crew.close()

    async def _look(self, place: Place, path: Path, target: Path | None, **order: Any) -> Probe:
        return await self._in_time(place, [path], target, order)

    async def _make(self, paths: Sequence[Path], target: Path, **order: Any) -> Probe:
        return await self._in_time(WORK, paths, target, order)

    async def _in_time(self, place: Place, paths: Sequence[Path], target: Path | None, order: dict[str, Any]) -> Probe:
        if place == OUTPUT:
            return await self._obey(place, paths, target, order)
        try:
            async with asyncio.timeout(STOP_S if self._stopping else None) as clock:
                self._clocks.add(clock)
                try:
                    return await self._obey(place, paths, target, order)
                finally:
                    self._clocks.discard(clock)
        except TimeoutError:
            raise MediaUnavailable("The service is stopping: send it again.") from None

    async def _obey(self, place: Place, paths: Sequence[Path], target: Path | None, order: dict[str, Any]) -> Probe:
        crew = self._makers if place.is_work else self._crews[place.client_id is not None]
        async with self._places.taken(place):
            files, size = await in_thread(_open, paths, target)
            wrote = False
            try:
                within_s = WORK_S if place.is_work else min(LOOK_S + MORE_S_PER_MB * size / 1_000_000, LONGEST_S)
                answer = await _ask(crew, order | {"reads": len(paths)}, files, within_s)
                wrote = answer.get("wrote") is True
                return answers.read(answer)
            finally:
                for file in files:
                    os.close(file)
                if target is not None and not wrote:
                    await asyncio.shield(in_thread(target.unlink, missing_ok=True))


async def _ask(crew: Crew, order: dict[str, Any], files: list[int], within_s: float) -> dict[str, Any]:
    async with crew.member() as child:
        try:
            return await child.ask(order, files, within_s)
        except TimeoutError:
            raise InvalidMedia(f"The file takes more than {within_s:.0f} seconds to look at.") from None
        except Died:
            if crew.closed:
                raise MediaUnavailable from None
            raise InvalidMedia("The file cannot be decoded within the limits of memory and time.") from None


def _open(paths: Sequence[Path], target: Path | None) -> tuple[list[int], int]:
    """Open the files and the target; return the descriptors and the files' size. Raises InvalidMedia, StorageFull."""
    # The child gets descriptors and no names: it needs no right to open anything.
    files: list[int] = []
    try:
        for path in paths:
            files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            if sniff(os.pread(files[-1], HEAD_BYTES, 0)) is None:
                raise InvalidMedia()
        size = sum(os.fstat(file).st_size for file in files)
        if target is not None:
            with room.needed():
                files.append(os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        return files, size
    except BaseException:
        for file in files:
            os.close(file)
        raise
