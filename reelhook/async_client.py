"""The client for asyncio: the same methods as the other one, to be awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack, overload

from reelhook import _calls, models
from reelhook._address import address
from reelhook._async import AsyncWire
from reelhook._calls import Call
from reelhook._following import Progress, Waiting
from reelhook.models import Asset, Campaign, Event, Filters, Generation, Json, Narrowing, Page, WebhookEndpoint
from reelhook.wanted import ImageWanted, VideoWanted

T = TypeVar("T")


class AsyncClient:
    """A Reelhook service, for asyncio; made with the same arguments as `Client`.

    Lists and events are asynchronous iterators. Read an event stream to its end or inside
    `contextlib.aclosing`.
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
        self._wire = AsyncWire(self._address, timeout, patience_s, fail_fast)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address.url!r})"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._wire.close()

    @overload
    async def generate_image(
        self, *, campaign_id: str, copies: None = None, **wanted: Unpack[ImageWanted]
    ) -> Generation: ...
    @overload
    async def generate_image(
        self, *, campaign_id: str, copies: int, **wanted: Unpack[ImageWanted]
    ) -> list[Generation]: ...
    async def generate_image(
        self, *, campaign_id: str, copies: int | None = None, **wanted: Unpack[ImageWanted]
    ) -> Generation | list[Generation]:
        """Ask for an image; with `copies`, for that many. It is accepted, not finished: see `wait`."""
        return await self._wire.send(_calls.generate("image", {"campaign_id": campaign_id, "copies": copies, **wanted}))

    @overload
    async def generate_video(
        self, *, campaign_id: str, copies: None = None, **wanted: Unpack[VideoWanted]
    ) -> Generation: ...
    @overload
    async def generate_video(
        self, *, campaign_id: str, copies: int, **wanted: Unpack[VideoWanted]
    ) -> list[Generation]: ...
    async def generate_video(
        self, *, campaign_id: str, copies: int | None = None, **wanted: Unpack[VideoWanted]
    ) -> Generation | list[Generation]:
        """Ask for a video; with a prompt alone its start image is generated first."""
        return await self._wire.send(_calls.generate("video", {"campaign_id": campaign_id, "copies": copies, **wanted}))

    async def generation(self, id: str) -> Generation:
        """Show one. Raises NotFound."""
        return await self._wire.send(_calls.generation(id))

    def generations(self, **filters: Unpack[Filters]) -> AsyncIterator[Generation]:
        """All generations, newest first, fetched page by page."""
        return self._each(lambda page: _calls.generations({**filters, **page}))

    async def generations_page(
        self, *, limit: int = 20, cursor: str | None = None, **filters: Unpack[Filters]
    ) -> Page[Generation]:
        """One page of generations."""
        return await self._wire.send(_calls.generations({**filters, "limit": limit, "cursor": cursor}))

    def campaign_images(self, campaign_id: str, **filters: Unpack[Narrowing]) -> AsyncIterator[Generation]:
        """All images of a campaign, newest first."""
        return self._each(lambda page: _calls.of_campaign(campaign_id, "image", {**filters, **page}))

    def campaign_videos(self, campaign_id: str, **filters: Unpack[Narrowing]) -> AsyncIterator[Generation]:
        """All videos of a campaign, newest first."""
        return self._each(lambda page: _calls.of_campaign(campaign_id, "video", {**filters, **page}))

    async def wait(
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
            await self._wire.wait(waiting)
        return waiting.result(raise_on_failure)

    def events(
        self,
        *,
        generation_id: str | None = None,
        campaign_id: str | None = None,
        client_id: str | None = None,
        last_event_id: str | None = None,
    ) -> AsyncGenerator[Event]:
        """Events as they happen, of one thing or of all the key may see; after `last_event_id` if it is given.

        It connects again by itself, for as long as it takes, and leaves out and doubles none. Those of a generation
        begin with its first and end with its last. Keep an event's `id` to go on from it in another process.
        """
        path = _calls.events_path(generation_id, campaign_id, client_id)
        return self._wire.events(path, last_event_id, generation_id)

    async def download(
        self, generation: Generation | str, to: str | Path | None = None, *, file: int | None = None
    ) -> Path:
        """Store a completed generation's file, checked by its SHA-256, and return where it is.

        `to` is a folder that exists (else: the working directory) or the file's own path. `file` is the index of one of
        its `files`; without it the first that is stored. The file appears whole or not at all. Raises DownloadFailed.
        """
        which = generation if isinstance(generation, Generation) else await self.generation(generation)
        return await self._wire.fetch(which, to, file)

    async def poster(self, generation: Generation) -> bytes:
        """A small JPEG of a completed one: the image, or a frame of the video. Raises Conflict before its end."""
        return await self._wire.send(_calls.poster(generation))

    async def cancel(self, id: str) -> Generation:
        """Stop one. Raises Conflict for what is finished."""
        return await self._wire.send(_calls.change(id, "cancel"))

    async def retry(self, id: str) -> Generation:
        """Ask again for one that failed or was canceled: a new one that names the old in `retry_of`."""
        return await self._wire.send(_calls.change(id, "retry"))

    async def delete(self, id: str) -> None:
        """Remove a finished one with its files."""
        await self._wire.send(_calls.delete_generation(id))

    async def create_campaign(
        self, name: str, *, client_id: str | None = None, budget_usd: float | None = None
    ) -> Campaign:
        """A new campaign, perhaps with a budget. An admin's key has to name the client."""
        wanted = {"name": name, "client_id": client_id, "budget_usd": budget_usd}
        return await self._wire.send(_calls.create_campaign(wanted))

    def campaigns(self) -> AsyncIterator[Campaign]:
        """All campaigns, newest first."""
        return self._each(_calls.campaigns)

    async def upload_asset(self, file: str | Path, *, client_id: str | None = None) -> Asset:
        """Bring a file from this machine to start from."""
        return await self._wire.send(_calls.upload_asset(Path(file), client_id))

    def assets(self) -> AsyncIterator[Asset]:
        """All assets, newest first."""
        return self._each(_calls.assets)

    async def create_webhook_endpoint(
        self, url: str, *, events: list[str] | None = None, client_id: str | None = None
    ) -> WebhookEndpoint:
        """Have events sent to an address: all, or these types. The answer alone has the `secret` that signs them."""
        wanted = {"url": url, "events": events, "client_id": client_id}
        return await self._wire.send(_calls.create_webhook_endpoint(wanted))

    def webhook_endpoints(self) -> AsyncIterator[WebhookEndpoint]:
        """All webhook endpoints, newest first."""
        return self._each(_calls.webhook_endpoints)

    async def usage(
        self,
        group_by: Literal["campaign", "client", "model", "provider", "key", "day"] = "campaign",
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        campaign_id: str | None = None,
        client_id: str | None = None,
    ) -> Json:
        """What was made and what it cost from the day `since` to before `until` (UTC), as the API gives it."""
        return await self._wire.send(_calls.usage(group_by, since, until, campaign_id, client_id))

    async def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        """Any other route: its JSON as it is."""
        return await self._wire.send(_calls.any_request(method, path, query, body))

    async def _each(self, page_of: Callable[[Mapping[str, Any]], Call[Page[T]]]) -> AsyncIterator[T]:
        cursor: str | None = None
        while True:
            page: models.Page[T] = await self._wire.send(page_of({"limit": _calls.PAGE, "cursor": cursor}))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return
