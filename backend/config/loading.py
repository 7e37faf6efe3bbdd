"""Settings loaded for a program, with what is wrong said in one sentence, and the names of their variables."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from backend.config import EnvFileError, Settings
from backend.config.sources import names_of
from backend.core.errors import SettingsError


def load() -> Settings:
    """Return the settings. Raises SettingsError that names each wrong variable, never its value."""
    try:
        return Settings()
    except EnvFileError as error:
        raise SettingsError(str(error)) from None
    except ValidationError as error:
        wrong = "; ".join(f"{name}: {reason}" for name, reason in reasons(error).items())
        raise SettingsError(f"{wrong} (`reelhook doctor` explains every setting)") from None


def reasons(error: ValidationError) -> dict[str, str]:
    """Return what is wrong, by the name of the variable."""
    return {_name(each): _reason(each) for each in error.errors(include_url=False)}


def _name(detail: ErrorDetails) -> str:
    return str(detail["loc"][0]).upper() if detail["loc"] else "settings"


def _reason(detail: ErrorDetails) -> str:
    """Return the message without the value: that may be a secret in the wrong place."""
    value = str(detail["input"])
    message = detail["msg"].removeprefix("Value error, ")
    return message.replace(value, "...") if len(value) > 3 else message


def setting_names() -> dict[str, list[str]]:
    """Return the variables that each field of Settings is read from, the usual one first."""
    return {
        field: [name.upper() for name in names_of(described, field)]
        for field, described in Settings.model_fields.items()
    }
