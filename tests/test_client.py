"""The Python clients, the blocking one and the one for asyncio, against the real service and the emulator."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from calling import CLIENTS, GoBetween, between
from emulating import Provider, png, until
from gateway import Gateway, gateway
from PIL import Image

import reelhook
from reelhook import _following


@pytest.fixture
def service(tmp_path: Path, provider: Provider) -> Iterator[Gateway]:
    with gateway(tmp_path, provider, forked=True) as service:
        yield service


@pytest.fixture
def line(service: Gateway) -> Iterator[GoBetween]:
    """The way to the service, with somebody on it."""
    with between(service.origin) as line:
        yield line


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, line: GoBetween) -> Iterator[Any]:
    client = CLIENTS[request.param](line.origin)
    yield client
    client.close()


def slow(provider: Provider, *, after_s: float = 3.0) -> None:
    """Let every prediction take its time."""
    provider.spoil({"kind": "delay", "delay_s": after_s})


class Listener:
    """A stream read in a thread, and what it told."""

    def __init__(self, events: Any) -> None:
        self.told: list[reelhook.Event] = []
        self.has_left = False
        self._thread = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._thread.start()

    def _listen(self, events: Any) -> None:
        try:
            for event in events:
                self.told.append(event)
        except Exception:
            if not self.has_left:  # then the client was closed under it
                raise

    @property
    def types(self) -> list[tuple[str, str]]:
        return [(each.data["id"], each.type) for each in self.told if each.id]


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin it; the answer is what it gives, or raises."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:  # handed to the test
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def answer() -> Any:
        thread.join(60)
        assert found, "it never came back"
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    return answer


def test_an_image_and_a_video_from_it_are_asked_for_waited_for_and_brought(
    client: Any, service: Gateway, tmp_path: Path
) -> None:
    campaign = client.create_campaign("Autumn", budget_usd=5)
    assert campaign.budget_usd == 5
    image = client.generate_image(campaign_id=campaign.id, prompt="a fox", metadata={"order": "7"}, seed=None)
    video = client.generate_video(campaign_id=campaign.id, prompt="it runs", image_id=image.id, duration=5)
    told: list[str] = []
    done = client.wait(video, timeout=60, on_progress=lambda now: told.append(now.status), raise_on_failure=True)
    assert told[-1] == done.status == "completed" and done.is_final and done.source == {"image_id": image.id}
    file = client.download(done, tmp_path)
    assert file == tmp_path / f"{video.id}.mp4"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == done.sha256
    first = client.generation(image.id)
    same = client.download(image.id, tmp_path / "fox").read_bytes()
    assert hashlib.sha256(same).hexdigest() == first.sha256
    assert (first.metadata, first.cost_usd.estimated is not None, first.bytes) == (
        {"order": "7"},
        True,
        first.raw["bytes"],
    )
    assert [each.id for each in client.campaign_images(campaign.id)] == [image.id]
    assert [each.id for each in client.campaign_videos(campaign.id, status="completed")] == [video.id]
    assert not list(tmp_path.glob("*.part"))


def test_a_poster_is_a_small_picture_and_there_is_none_before_the_end(
    client: Any, service: Gateway, provider: Provider
) -> None:
    video = client.wait(client.generate_video(campaign_id=service.campaign_id, prompt="it runs"))
    with Image.open(BytesIO(client.poster(video))) as poster:
        assert poster.format == "JPEG" and poster.width <= 640
    slow(provider, after_s=30)
    unfinished = client.generate_image(campaign_id=service.campaign_id, prompt="a fox")
    with pytest.raises(reelhook.Conflict):
        client.poster(unfinished)
    client.cancel(unfinished.id)
    client.wait(unfinished)


def test_copies_come_as_a_list_and_lists_go_on_over_pages(
    client: Any, service: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reelhook._calls.PAGE", 2)
    copies = client.generate_image(campaign_id=service.campaign_id, prompt="foxes", copies=4)
    assert isinstance(copies, list) and len({each.batch_id for each in copies}) == 1
    found = list(client.generations(batch_id=copies[0].batch_id))
    assert {each.id for each in found} == {each.id for each in copies} and len(found) == 4
    page = client.generations_page(limit=3, kind="image")
    assert len(page.items) == 3 and page.next_cursor
    assert len(client.generations_page(limit=3, cursor=page.next_cursor).items) == 1
    names = [client.create_campaign(f"campaign {number}").name for number in range(3)]
    assert [each.name for each in client.campaigns()][:3] == names[::-1]
    for each in copies:
        client.wait(each, timeout=60)


def test_an_asset_is_brought_and_started_from(client: Any, service: Gateway, tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(png())
    asset = client.upload_asset(tmp_path / "fox.png")
    assert (asset.kind, asset.name, asset.bytes) == ("image", "fox.png", len(png()))
    assert [each.id for each in client.assets()] == [asset.id]
    image = client.generate_image(campaign_id=service.campaign_id, asset_id=asset.id)
    assert client.wait(image, timeout=60).status == "completed"


def test_what_is_canceled_can_be_retried_and_removed(client: Any, service: Gateway, provider: Provider) -> None:
    slow(provider, after_s=30)
    image = client.generate_image(campaign_id=service.campaign_id, prompt="a fox")
    client.cancel(image.id)
    assert client.wait(image, timeout=60).status == "canceled"
    provider.spoil()
    again = client.retry(image.id)
    assert again.retry_of == image.id
    assert client.wait(again.id, timeout=60).status == "completed"
    with pytest.raises(reelhook.Conflict) as caught:
        client.retry(again.id)
    assert caught.value.code == "not_retryable" and caught.value.request_id


def test_what_has_ended_can_be_removed(client: Any, service: Gateway, provider: Provider) -> None:
    slow(provider)
    image = client.generate_image(campaign_id=service.campaign_id, prompt="a fox")
    video = client.generate_video(campaign_id=service.campaign_id, image_id=image.id)
    with pytest.raises(reelhook.Conflict):
        client.delete(video.id)
    client.cancel(video.id)
    client.delete(video.id)
    with pytest.raises(reelhook.NotFound):
        client.generation(video.id)
    client.wait(image, timeout=60)


def test_a_budget_that_is_used_up_is_said(client: Any, service: Gateway) -> None:
    campaign = client.create_campaign("Cheap", budget_usd=0.01)
    with pytest.raises(reelhook.BudgetExceeded) as caught:
        client.generate_image(campaign_id=campaign.id, prompt="a fox")
    assert (caught.value.status, caught.value.code) == (402, "budget_exceeded")


def test_a_wrong_field_is_named(client: Any, service: Gateway) -> None:
    with pytest.raises(reelhook.InvalidRequest) as caught:
        client.generate_video(campaign_id=service.campaign_id, prompt="p", duration=7)
    assert [each["field"] for each in caught.value.errors] == ["duration"]


def test_a_generation_whose_answer_was_lost_is_made_once(
    client: Any, service: Gateway, line: GoBetween, provider: Provider
) -> None:
    line.swallow = 2
    image = client.generate_image(campaign_id=service.campaign_id, prompt="only once")
    assert line.swallow == 0
    assert client.wait(image, timeout=60).status == "completed"
    assert [each.id for each in client.generations(q="only once")] == [image.id]
    assert len(provider.ledger["predictions"]) == 1


def test_a_key_of_the_callers_own_gives_the_same_generation_again(client: Any, service: Gateway) -> None:
    wanted = {"campaign_id": service.campaign_id, "prompt": "a fox", "idempotency_key": "order-4711"}
    first = client.generate_image(**wanted)
    assert client.generate_image(**wanted).id == first.id
    with pytest.raises(reelhook.InvalidRequest) as caught:
        client.generate_image(**(wanted | {"prompt": "another"}))
    assert caught.value.code == "idempotency_key_reused"
    client.wait(first, timeout=60)


@pytest.mark.story
def test_a_wait_outlives_the_service_being_killed(client: Any, service: Gateway, provider: Provider) -> None:
    slow(provider)
    image = client.generate_image(campaign_id=service.campaign_id, prompt="a fox")
    told: list[str] = []
    answer = in_thread(lambda: client.wait(image.id, timeout=90, on_progress=lambda now: told.append(now.stage)))
    until(lambda: told)
    service.restart()
    assert answer().status == "completed"
    assert len(provider.ledger["predictions"]) == 1


@pytest.mark.story
def test_a_wait_that_began_while_nobody_was_there_finds_its_end(client: Any, service: Gateway) -> None:
    image = client.generate_image(campaign_id=service.campaign_id, prompt="a fox")
    service.reach(image.id, "processing", "storing", "completed")  # a submit that is cut off is unclear for long
    service.kill()
    answer = in_thread(lambda: client.wait(image.id, timeout=90))
    service.start()
    assert answer().status == "completed"


@pytest.mark.story
def test_events_go_on_after_kills_and_cut_lines_without_a_gap_or_a_double(
    client: Any, service: Gateway, line: GoBetween
) -> None:
    first = client.generate_image(campaign_id=service.campaign_id, prompt="the first")
    client.wait(first, timeout=60)
    begun = [each.id for each in client.events(generation_id=first.id)]
    listener = Listener(client.events(campaign_id=service.campaign_id, last_event_id=begun[0]))
    made = [first.id]
    for spoil in (line.drop, service.restart, line.drop):
        made += service.ask_many(3)
        for id in made[-3:]:
            service.reach(id, "processing", "storing", "completed")
        spoil()
    made += service.ask_many(3)
    for id in made:
        service.ended(id, within_s=60)
    wanted = sorted((id, f"generation.{what}") for id in made for what in ("processing", "completed"))
    wanted.remove((first.id, "generation.processing"))  # it was seen before
    until(lambda: len(listener.types) >= len(wanted), 60)
    assert sorted(listener.types) == wanted
    ids = [each.id for each in listener.told if each.id]
    assert ids == sorted(ids)
    listener.has_left = True


def test_the_events_of_a_generation_end_with_it(client: Any, service: Gateway) -> None:
    image = client.generate_image(campaign_id=service.campaign_id, prompt="a fox")
    told = [each for each in client.events(generation_id=image.id) if each.id]
    assert [each.type for each in told] == ["generation.processing", "generation.completed"]
    about = told[1].generation
    assert about and about.url and about.status == "completed"
    after = [each.type for each in client.events(generation_id=image.id, last_event_id=told[0].id)]
    assert after == ["generation.completed"]
    assert list(client.events(generation_id=image.id, last_event_id=told[1].id)) == []
    with pytest.raises(reelhook.NotFound):
        next(iter(client.events(generation_id="01900000-0000-7000-8000-000000000000")))


def test_a_listener_may_leave_at_any_event(client: Any, service: Gateway) -> None:
    image = client.generate_image(campaign_id=service.campaign_id, prompt="a fox")
    stream = client.events(generation_id=image.id)
    assert next(stream).type == "generation.processing"
    stream.close()
    assert client.wait(image, timeout=60).status == "completed"


def test_a_wait_without_streams_comes_to_the_same_end(
    client: Any, service: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_following.Feed, "open", refuse_streams)
    image = client.generate_image(campaign_id=service.campaign_id, prompt="a fox")
    assert client.wait(image, timeout=60).status == "completed"


def refuse_streams(*_: object) -> None:
    raise reelhook.BadAnswer("no streams today")


def test_a_download_goes_on_where_the_line_was_cut(
    client: Any, service: Gateway, line: GoBetween, tmp_path: Path
) -> None:
    done = client.wait(client.generate_video(campaign_id=service.campaign_id, prompt="a fox"), timeout=60)
    assert done.bytes > 6000
    line.cut_after = [3000, 2000]
    file = client.download(done, tmp_path / "fox.mp4")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == done.sha256
    asked = [each for each in line.requests if f"/videos/{done.id}/data".encode() in each]
    assert len(asked) == 3 and b"Range" not in asked[0]
    assert all(b"Range: bytes=" in each and b"If-Range: " in each for each in asked[1:])


def test_a_byte_that_changed_on_the_way_leaves_no_file(
    client: Any, service: Gateway, line: GoBetween, tmp_path: Path
) -> None:
    done = client.wait(client.generate_video(campaign_id=service.campaign_id, prompt="a fox"), timeout=60)
    line.alter = True
    (tmp_path / "results").mkdir()
    with pytest.raises(reelhook.DownloadFailed, match="did not arrive as it was stored"):
        client.download(done, tmp_path / "results")
    assert list((tmp_path / "results").iterdir()) == []
    assert client.download(done, tmp_path / "results").stat().st_size == done.bytes


def test_one_client_serves_many_threads(client: Any, service: Gateway) -> None:
    made = [client.generate_image(campaign_id=service.campaign_id, prompt=f"fox {number}") for number in range(8)]
    answers = [in_thread(lambda each=each: client.wait(each, timeout=60)) for each in made]
    assert [answer().id for answer in answers] == [each.id for each in made]


def test_what_was_spent_is_told(client: Any, service: Gateway) -> None:
    client.wait(client.generate_image(campaign_id=service.campaign_id, prompt="a fox"), timeout=60)
    usage = client.usage("model", since=date(2026, 1, 1), campaign_id=service.campaign_id)
    assert usage["total"]["counts"]["completed"] == 1
    assert client.usage("day", until="2020-01-01")["items"] == []
    with pytest.raises(reelhook.InvalidRequest):
        client.usage("day", since="yesterday")


def test_webhook_endpoints_are_made_and_listed(client: Any, service: Gateway) -> None:
    whose = client.create_campaign("Autumn").client_id
    made = client.create_webhook_endpoint("https://example.com/hook", events=["generation.completed"], client_id=whose)
    assert made.secret and made.secret.startswith("whsec_") and made.secret not in repr(made)
    (found,) = client.webhook_endpoints()
    assert (found.id, found.secret, found.enabled, found.events) == (made.id, None, True, ["generation.completed"])


def test_a_stream_that_was_cut_before_its_first_event_misses_none(
    client: Any, service: Gateway, line: GoBetween
) -> None:
    listener = Listener(client.events(campaign_id=service.campaign_id))
    until(lambda: any(b"retry: " in answer for answer in line.answers))
    there, line.upstream = line.upstream, ("127.0.0.1", 9)
    line.drop()
    missed = service.ended(service.ask()["id"])["id"]
    line.upstream = there
    until(lambda: listener.types == [(missed, "generation.processing"), (missed, "generation.completed")], 40)
    listener.has_left = True
