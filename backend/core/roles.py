"""The roles of references: what a model uses a picture, film or sound for, and which of them go together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pydantic import StrictBool, StrictInt

from backend.core.conditions import Condition, holds, told
from backend.core.inputs import CLOSED, Number

RoleName = Literal["first_frame", "last_frame", "image", "subject", "style", "mask", "video", "audio"]
ROLES: tuple[RoleName, ...] = get_args(RoleName)


@dataclass(frozen=True)
class Role:
    """One role of references: where they go, how many there may be, with which others, and which files fit."""

    __pydantic_config__ = CLOSED

    path: str  # in the provider's inputs; dots lead into objects
    list: StrictBool = False  # whether the provider wants a list, also of one
    max: StrictInt | None = None  # of a list; None: nobody says how many
    required: StrictBool = False
    excludes: tuple[RoleName, ...] = ()
    needs: tuple[RoleName, ...] = ()
    when: Condition = field(default_factory=dict)  # the inputs with which it may be given
    formats: tuple[str, ...] = ()  # content types; none: nobody says which
    max_mb: Number | None = None
    max_px: StrictInt | None = None  # of the longer side

    @property
    def most(self) -> int | None:
        """Return how many references it takes; None when the provider does not say."""
        return self.max if self.list else 1

    def misfit(self, content_type: str, size: int, sides: tuple[int | None, int | None]) -> str | None:
        """Return why the model does not take a file of so many bytes and pixels; None when it does."""
        if self.formats and content_type not in self.formats:
            return f"is {content_type}, and the model takes {', '.join(self.formats)}"
        if self.max_mb is not None and size > self.max_mb * 1_000_000:
            return f"has more than {self.max_mb} MB, which the model does not take"
        if self.max_px is not None and max(side or 0 for side in sides) > self.max_px:
            return f"has a side of more than {self.max_px} pixels, which the model does not take"
        return None


def conflict(
    roles: Mapping[RoleName, Role], given: Mapping[RoleName, str], facts: Mapping[str, Any]
) -> tuple[RoleName, str] | None:
    """Return the first role that cannot be given like this, and why. `given` has the field that gave each role."""
    for name, role in roles.items():
        if why := _objection(name, role, given, facts):
            return name, why
    return None


def _objection(name: RoleName, role: Role, given: Mapping[RoleName, str], facts: Mapping[str, Any]) -> str | None:
    """Return why this role cannot be given, or left out, like this; None when it can."""
    if name not in given:
        return "is needed" if role.required else None
    if not holds(role.when, facts):
        return f"needs {told(role.when)}"
    if excluded := next((other for other in given if other in role.excludes), None):
        return f"does not go with {given[excluded]}"
    missing = next((needed for needed in role.needs if needed not in given), None)
    return f"needs a {missing} too" if missing else None
