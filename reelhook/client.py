"""The client that blocks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack, overload

from reelhook import _calls, models
from reelhook._address import address
from reelhook._calls import Call
from reelhook._following import Progress, Waiting
from reelhook._sync import Wire
from reelhook.models import Asset, Campaign, Event, Filters, Generation, Json, Narrowing, Page, WebhookEndpoint
from reelhook.wanted import ImageWanted, VideoWanted

T = TypeVar("T")


class Client:
    """A Reelhook service.

    The address is `base_url`, else REELHOOK_URL, else http://localhost:8000; the key is `api_key`, else
    REELHOOK_API_KEY. `timeout` is in seconds, for each part of one request. A call that finds no service, no
    answer, or a request to come back later is sent again for up to `patience_s` seconds: every POST has an
    Idempotency-Key, so nothing is made or paid twice. `fail_fast` gives up at once if nobody answers the first.
    It may be shared by threads.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        patience_s: float = 30.0,
        fail_fast: bool = False,
    ) -> None:
        self._address = address(base_url, api_key)
        self._wire = Wire(self._address, timeout, patience_s, fail_fast)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._wire.close()

    @overload
    def generate_image(self, *, campaign_id: str, copies: None = None, **wanted: Unpack[ImageWanted]) -> Generation: ...
    @overload
    def generate_image(self, *, campaign_id: str, copies: int, **wanted: Unpack[ImageWanted]) -> list[Generation]: ...
    def generate_image(
        self, *, campaign_id: str, copies: int | None = None, **wanted: Unpack[ImageWanted]
    ) -> Generation | list[Generation]:
        """Ask for an image; with `copies`, for that many. It is accepted, not finished: see `wait`."""
        return self._wire.send(_calls.generate("image", {"campaign_id": campaign_id, "copies": copies, **wanted}))

    @overload
    def generate_video(self, *, campaign_id: str, copies: None = None, **wanted: Unpack[VideoWanted]) -> Generation: ...
    @overload
    def generate_video(self, *, campaign_id: str, copies: int, **wanted: Unpack[VideoWanted]) -> list[Generation]: ...
    def generate_video(
        self, *, campaign_id: str, copies: int | None = None, **wanted: Unpack[VideoWanted]
    ) -> Generation | list[Generation]:
        """Ask for a video; with a prompt alone its start image is generated first."""
        return self._wire.send(_calls.generate("video", {"campaign_id": campaign_id, "copies": copies, **wanted}))

    def generation(self, id: str) -> Generation:
        """Show one. Raises NotFound."""
        return self._wire.send(_calls.generation(id))

    def generations(self, **filters: Unpack[Filters]) -> Iterator[Generation]:
        """All generations, newest first, fetched page by page."""
        return self._each(lambda page: _calls.generations({**filters, **page}))

    def generations_page(
        self, *, limit: int = 20, cursor: str | None = None, **filters: Unpack[Filters]
    ) -> Page[Generation]:
        """One page of generations."""
        return self._wire.send(_calls.generations({**filters, "limit": limit, "cursor": cursor}))

    def campaign_images(self, campaign_id: str, **filters: Unpack[Narrowing]) -> Iterator[Generation]:
        """All images of a campaign, newest first."""
        return self._each(lambda page: _calls.of_campaign(campaign_id, "image", {**filters, **page}))

    def campaign_videos(self, campaign_id: str, **filters: Unpack[Narrowing]) -> Iterator[Generation]:
        """All videos of a campaign, newest first."""
        return self._each(lambda page: _calls.of_campaign(campaign_id, "video", {**filters, **page}))

    def wait(
        self,
        generation: Generation | str,
        *,
        timeout: float | None = None,
        on_progress: Progress | None = None,
        raise_on_failure: bool = False,
    ) -> Generation:
        """Wait for a generation's end, told by events; return it as completed, failed or canceled.

        `on_progress` is called with it at every change. Raises WaitTimedOut after `timeout` seconds, GenerationFailed
        if that was asked for, and Unreachable when the service is away for longer than `patience_s`.
        """
        waiting = Waiting(generation, timeout, on_progress)
        if waiting.latest is None or not waiting.latest.is_final:
            self._wire.wait(waiting)
        return waiting.result(raise_on_failure)

    def events(
        self,
        *,
        generation_id: str | None = None,
        campaign_id: str | None = None,
        client_id: str | None = None,
        last_event_id: str | None = None,
    ) -> Generator[Event]:
        """Events as they happen, of one thing or of all the key may see; after `last_event_id` if it is given.

        It connects again by itself, for as long as it takes, and leaves out and doubles none. Those of a generation
        begin with its first and end with its last. Keep an event's `id` to go on from it in another process.
        """
        path = _calls.events_path(generation_id, campaign_id, client_id)
        return self._wire.events(path, last_event_id, generation_id)

    def download(self, generation: Generation | str, to: str | Path | None = None, *, file: int | None = None) -> Path:
        """Store a completed generation's file, checked by its SHA-256, and return where it is.

        `to` is a folder that exists (else: the working directory) or the file's own path. `file` is the index of one of
        its `files`; without it the first that is stored. The file appears whole or not at all. Raises DownloadFailed.
        """
        which = generation if isinstance(generation, Generation) else self.generation(generation)
        return self._wire.fetch(which, to, file)

    def poster(self, generation: Generation) -> bytes:
        """A small JPEG of a completed one: the image, or a frame of the video. Raises Conflict before its end."""
        return self._wire.send(_calls.poster(generation))

    def cancel(self, id: str) -> Generation:
        """Stop one. Raises Conflict for what is finished."""
        return self._wire.send(_calls.change(id, "cancel"))

    def retry(self, id: str) -> Generation:
        """Ask again for one that failed or was canceled: a new one that names the old in `retry_of`."""
        return self._wire.send(_calls.change(id, "retry"))

    def delete(self, id: str) -> None:
        """Remove a finished one with its files."""
        self._wire.send(_calls.delete_generation(id))

    def create_campaign(self, name: str, *, client_id: str | None = None, budget_usd: float | None = None) -> Campaign:
        """A new campaign, perhaps with a budget. An admin's key has to name the client."""
        wanted = {"name": name, "client_id": client_id, "budget_usd": budget_usd}
        return self._wire.send(_calls.create_campaign(wanted))

    def campaigns(self) -> Iterator[Campaign]:
        """All campaigns, newest first."""
        return self._each(_calls.campaigns)

    def upload_asset(self, file: str | Path, *, client_id: str | None = None) -> Asset:
        """Bring a file from this machine to start from."""
        return self._wire.send(_calls.upload_asset(Path(file), client_id))

    def assets(self) -> Iterator[Asset]:
        """All assets, newest first."""
        return self._each(_calls.assets)

    def create_webhook_endpoint(
        self, url: str, *, events: list[str] | None = None, client_id: str | None = None
    ) -> WebhookEndpoint:
        """Have events sent to an address: all, or these types. The answer alone has the `secret` that signs them."""
        wanted = {"url": url, "events": events, "client_id": client_id}
        return self._wire.send(_calls.create_webhook_endpoint(wanted))

    def webhook_endpoints(self) -> Iterator[WebhookEndpoint]:
        """All webhook endpoints, newest first."""
        return self._each(_calls.webhook_endpoints)

    def usage(
        self,
        group_by: Literal["campaign", "client", "model", "provider", "key", "day"] = "campaign",
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        campaign_id: str | None = None,
        client_id: str | None = None,
    ) -> Json:
        """What was made and what it cost from the day `since` to before `until` (UTC), as the API gives it."""
        return self._wire.send(_calls.usage(group_by, since, until, campaign_id, client_id))

    def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        """Any other route: its JSON as it is."""
        return self._wire.send(_calls.any_request(method, path, query, body))

    def _each(self, page_of: Callable[[Mapping[str, Any]], Call[Page[T]]]) -> Iterator[T]:
        cursor: str | None = None
        while True:
            page: models.Page[T] = self._wire.send(page_of({"limit": _calls.PAGE, "cursor": cursor}))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return
