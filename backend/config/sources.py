"""Where settings come from: the environment, then `.env`. What is blank counts as not set, in both."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from backend.config.values import is_blank

MOST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class EnvFileError(ValueError):
    """`.env` cannot be read as settings; the message names the file and quotes nothing of it."""


class Variables(PydanticBaseSettingsSource):
    """Settings by the names of variables, whatever their case. What is blank counts as not set."""

    def __init__(self, settings_cls: type[BaseSettings], found: Mapping[str, str | None]) -> None:
        super().__init__(settings_cls)
        self._found = {name.lower(): value for name, value in found.items()}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """The text of the first of the field's variables that is set, or None, and the name the model takes it by."""
        names = names_of(field, field_name)
        values = (self._found.get(name.lower()) for name in names)
        return next((value for value in values if value and not is_blank(value)), None), names[0], False

    def __call__(self) -> dict[str, str]:
        """Every field that is set."""
        fields = self.settings_cls.model_fields.items()
        found = (self.get_field_value(field, field_name) for field_name, field in fields)
        return {name: value for value, name, _ in found if value is not None}


def names_of(field: FieldInfo, field_name: str) -> list[str]:
    """The variables that a field of settings is read from, the usual one first."""
    alias = field.validation_alias
    return [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else [field_name]


def file_variables(file: str | Path) -> Mapping[str, str | None]:
    """The variables of a file of settings; none when there is no file. Raises EnvFileError."""
    return dotenv_values(stream=StringIO(read_file(file)))


def read_file(file: str | Path) -> str:
    """The text of a file of settings, or none when there is no file. Raises EnvFileError."""
    text = _read(Path(file))
    for each in parse_stream(StringIO(text)):
        if each.error or (each.key is not None and not _NAME.fullmatch(each.key)):
            raise EnvFileError(f"{file} cannot be read in line {each.original.line}: write NAME=value")
    return text


def _read(path: Path) -> str:
    try:
        # A pipe would keep the start waiting, and a device has no end.
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
        # Some editors begin a file with a byte order mark, which would become part of the first name.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise EnvFileError(f"{path} is not text in UTF-8 (line {line}): save it as UTF-8") from None
