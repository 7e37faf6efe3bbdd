"""A disk that forgets: what may be left of a folder after a power cut, by the log of every call on it.

What was synced is there: a file's bytes as they were before its last finished sync, a name as its folder was
at that folder's last finished sync. Of everything else a part is there: nothing, all, or any blocks of the
files and the first few of the changes of names. A file's own sync does not keep its name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

BLOCK = 4096
CALLS = (
    "open,openat,creat,write,writev,pwrite64,pwritev,lseek,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,sendto,sendmsg"
)

_CALL = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)", re.S)
_RESULT = re.compile(r"\) += (-?\d+)")
_PLACE = re.compile(r"(AT_FDCWD|\d+)<([^>]*)>")


def logged(log: Path) -> list[str]:
    """What a command is put behind so that `log` has all it does to files, with all bytes."""
    return [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-y",
        "-xx",
        "-s",
        "9999999",
        "-e",
        f"trace={CALLS}",
        "-o",
        str(log),
    ]


@dataclass
class Call:
    """A call with its arguments as text; `began` and `ended` are its places in the log."""

    name: str
    text: str
    result: int
    began: int
    ended: int

    @cached_property
    def strings(self) -> list[bytes]:
        return [_decoded(part) for part in self.text.split('"')[1::2]]

    @cached_property
    def places(self) -> list[Path]:
        """The paths of its descriptors."""
        return [Path(_text(_decoded(path))) for _, path in _PLACE.findall(self._rest)]

    @property
    def numbers(self) -> list[str]:
        return re.findall(r", (-?\d+)", self._rest)

    @property
    def fd(self) -> int:
        return int(self.text.partition("<")[0])

    @property
    def _rest(self) -> str:
        """All but the strings, which have no quotes within."""
        return "".join(self.text.split('"')[::2])

    def paths(self) -> Iterator[Path]:
        """Every path that is named, each from the folder before it."""
        names = iter(self.strings)
        if self.name in ("rename", "link", "unlink", "mkdir"):
            yield from (Path(_text(name)) for name in names)
        else:
            yield from (place / _text(name) for place, name in zip(self.places, names, strict=False))


def read(log: Path) -> list[Call]:
    """Every call that came to an end, in the order of their ends."""
    calls: list[Call] = []
    begun: dict[str, tuple[str, str, int]] = {}
    for at, line in enumerate(log.read_text("ascii", "replace").splitlines()):
        found = _CALL.match(line)
        if not found:
            continue
        thread, resumed, name, rest = found.groups()
        if rest.endswith("<unfinished ...>"):
            begun[thread] = (name, rest.removesuffix("<unfinished ...>"), at)
            continue
        began = at
        if resumed:
            name, before, began = begun.pop(thread)
            rest = before + rest
        if (result := _RESULT.search(rest)) and int(result[1]) >= 0:
            calls.append(Call(name, rest[: result.start()], int(result[1]), began, at))
    return calls


@dataclass
class File:
    """Changes of one file's bytes: (place in the log, offset, bytes), or a new length when there are no bytes."""

    start: bytes = b""
    changes: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    synced: int = -1  # what ended before this place in the log is safe

    def left(self, mode: str, chance: random.Random) -> bytes:
        content = bytearray(self.start)
        for at, offset, change in self.changes:
            safe = at < self.synced
            if change is None:
                if safe or _kept(mode, chance):
                    content[:] = content[:offset].ljust(offset, b"\0")
                continue
            for block in _blocks(offset, change):
                if safe or _kept(mode, chance):
                    _put(content, *block)
        return bytes(content)


FOLDER = File()
Names = dict[Path, File | None]


@dataclass
class Name:
    """A change of names: each path becomes this file or a folder, or is gone; safe when `folder` is synced."""

    at: int
    changes: Names
    folder: Path
    safe: bool = False


class Disk:
    """A folder whose calls are told to it one after the other, and which can lose its power at any moment."""

    def __init__(self, folder: Path, before: Path | None = None) -> None:
        """What is in `before`, a copy of the folder as it was when the log began, is safe."""
        self._folder = folder
        found = [path for path in before.rglob("*") if _counts(path)] if before else []
        self._start: Names = {
            folder / path.relative_to(before): FOLDER if path.is_dir() else File(path.read_bytes())
            for path in found
            if before
        }
        self._now: Names = dict(self._start)
        self._names: list[Name] = []
        self._offsets: dict[int, int] = {}

    def tell(self, call: Call) -> None:
        """One more call was done."""
        if call.name in ("fsync", "fdatasync"):
            self._sync(call)
        elif call.name == "openat":
            self._open(call)
        elif call.name.startswith(("rename", "link", "unlink", "mkdir")):
            paths = list(call.paths())
            if self._ours(paths[0]):
                self._rename(call, paths)
        else:
            self._change(call)

    def left(self, mode: str, chance: random.Random) -> dict[Path, bytes | None]:
        """What a power cut now may leave: `none`, `all` or `some` of what was not synced; None is a folder."""
        waiting = [name for name in self._names if not name.safe]
        keep = {"none": 0, "all": len(waiting)}.get(mode, chance.randint(0, len(waiting)))
        lost = {id(name) for name in waiting[keep:]}
        there = dict(self._start)
        for name in self._names:
            if id(name) not in lost:
                there |= name.changes
        return {
            path.relative_to(self._folder): None if file is FOLDER else file.left(mode, chance)
            for path, file in there.items()
            if file and all(there.get(parent) is FOLDER for parent in self._above(path))
        }

    def _rename(self, call: Call, paths: list[Path]) -> None:
        first, last = paths[0], paths[-1]
        if call.name.startswith("mkdir"):
            self._name(call, {first: FOLDER}, first)
        elif call.name.startswith("unlink"):
            self._name(call, {first: None}, first)
        elif call.name.startswith("link"):
            self._name(call, {last: self._now[first]}, last)
        else:
            self._name(call, {first: None, last: self._now[first]}, last)

    def _open(self, call: Call) -> None:
        path = next(iter(call.paths()))
        self._offsets[call.result] = 0
        if not self._ours(path):
            return
        if self._now.get(path) is None and "O_CREAT" in call.text:
            self._name(call, {path: File()}, path)
        elif "O_TRUNC" in call.text:
            self._file(path).changes.append((call.ended, 0, None))

    def _change(self, call: Call) -> None:
        if call.name == "lseek":
            self._offsets[call.fd] = call.result
        path = call.places[0]
        if not self._ours(path) or call.name == "lseek" or self._now.get(path) is None:
            return
        assert call.name in ("write", "pwrite64", "ftruncate"), call.name
        if call.name == "ftruncate":
            self._file(path).changes.append((call.ended, int(call.numbers[-1]), None))
            return
        offset = self._offsets.get(call.fd, 0) if call.name == "write" else int(call.numbers[-1])
        self._file(path).changes.append((call.ended, offset, call.strings[0][: call.result]))
        if call.name == "write":
            self._offsets[call.fd] = offset + call.result

    def _sync(self, call: Call) -> None:
        """All that ended before the sync began is safe."""
        path = call.places[0]
        if file := self._now.get(path):
            file.synced = call.began
        for name in self._names:
            if name.folder == path and name.at < call.began:
                name.safe = True

    def _name(self, call: Call, changes: Names, path: Path) -> None:
        self._now |= changes
        self._names.append(Name(call.ended, changes, path.parent))

    def _file(self, path: Path) -> File:
        file = self._now[path]
        assert file is not None
        return file

    def _ours(self, path: Path) -> bool:
        return path.is_relative_to(self._folder) and path != self._folder and _counts(path)

    def _above(self, path: Path) -> Iterator[Path]:
        return (parent for parent in path.parents if parent.is_relative_to(self._folder) and parent != self._folder)


def _counts(path: Path) -> bool:
    """Shared memory is made anew; the log and locks are not of the data."""
    return not path.name.endswith(("-shm", ".lock", ".log"))


def _kept(mode: str, chance: random.Random) -> bool:
    return mode == "all" or (mode == "some" and chance.random() < 0.5)


def _blocks(offset: int, content: bytes) -> Iterator[tuple[int, bytes]]:
    """As a disk writes them: each block of its own."""
    at = 0
    while at < len(content):
        length = min(BLOCK - (offset + at) % BLOCK, len(content) - at)
        yield offset + at, content[at : at + length]
        at += length


def _put(content: bytearray, offset: int, change: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(change)] = change


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape").removesuffix(" (deleted)")
