"""Who asks, and what clients have: keys, campaigns, assets. Pure: no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, and from where. An admin has no client and sees all. `prefix` is the public part of the key."""

    key_id: str
    client_id: str | None
    admin: bool = False
    image_limit: str | None = None
    video_limit: str | None = None
    campaign_id: str | None = None  # of requests that name none
    kind: Literal["key", "dev", "cli", "system"] = "key"
    name: str | None = None  # of the key, or of the user at the command line
    prefix: str | None = None
    address: str | None = None
    request_id: str | None = None

    @property
    def only_client(self) -> str | None:
        """The one client whose things are seen, or None for all."""
        return None if self.admin else self.client_id

    def sees(self, client_id: str) -> bool:
        """Whether this client's things exist for the caller."""
        return self.admin or self.client_id == client_id


@dataclass(frozen=True, slots=True)
class Client:
    """A customer of the agency; keys, campaigns and assets belong to one. Money is in millionths of a dollar."""

    id: str
    name: str
    created_at: int
    budget_micros: int | None = None
    reserved_micros: int = 0
    spent_micros: int = 0


@dataclass(frozen=True, slots=True)
class Campaign:
    """What generations are made for and counted by. Money is in millionths of a dollar."""

    id: str
    client_id: str
    name: str
    created_at: int
    budget_micros: int | None = None
    reserved_micros: int = 0
    spent_micros: int = 0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored: its hash, never the key. `prefix` is public and finds the row."""

    id: str
    client_id: str | None
    name: str
    prefix: str
    hash: str
    admin: bool
    image_limit: str | None
    video_limit: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    campaign_id: str | None = None  # of requests that name none
    fingerprint: int | None = None  # 16 bits of the key's SHA-256; of older keys None until they are used


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that a client uploaded: an image, a video or audio. Its type and size were read from its bytes."""

    id: str
    client_id: str
    kind: Literal["image", "video", "audio"]
    name: str | None
    file_name: str
    content_type: str
    bytes: int
    sha256: str
    width: int | None
    height: int | None
    duration_s: float | None
    created_at: int
