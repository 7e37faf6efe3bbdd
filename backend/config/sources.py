"""Where settings come from: the environment, then `.env`. What is blank counts as not set, in both."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from backend.config.values import is_blank

MOST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class EnvFileError(ValueError):
    """`.env` cannot be read as settings; the message names the file and quotes nothing of it."""


class Environment(EnvSettingsSource):
    """The environment, without what is blank: so `VAR=` leaves what `.env` says."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return _set(super()._load_env_vars())


class EnvFile(DotEnvSettingsSource):
    """One file of settings, which is refused as a whole when a part of it cannot be read."""

    def _read_env_files(self) -> Mapping[str, str | None]:
        if not isinstance(self.env_file, str | Path):
            return {}
        text = read_file(self.env_file)
        return _set({name.lower(): value for name, value in dotenv_values(stream=StringIO(text)).items()})


def read_file(file: str | Path) -> str:
    """The text of a file of settings, or none when there is no file. Raises EnvFileError."""
    text = _read(Path(file))
    for each in parse_stream(StringIO(text)):
        if each.error or (each.key is not None and not _NAME.fullmatch(each.key)):
            raise EnvFileError(f"{file} cannot be read in line {each.original.line}: write NAME=value")
    return text


def _set(found: Mapping[str, str | None]) -> Mapping[str, str | None]:
    return {name: value for name, value in found.items() if value is not None and not is_blank(value)}


def _read(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise EnvFileError(f"{path} is not a file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise EnvFileError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise EnvFileError(f"{path} is larger than {MOST_BYTES >> 20} MB")
    if b"\0" in content:
        raise EnvFileError(f"{path} is not text in UTF-8 (it may be UTF-16): save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise EnvFileError(f"{path} is not text in UTF-8 (line {line}): save it as UTF-8") from None
