"""Webhooks leave the emulator as they leave Replicate: signed, ordered, insistent only at the end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from emulating import Provider, Receiver, emulating, receiving, until
from standardwebhooks import Webhook, WebhookVerificationError

from backend.emulator import EmulatorOptions

EVERYTHING = ["start", "output", "logs", "completed"]


def ask(provider: Provider, receiver: Receiver, events: list[str] | None, prompt: str = "a fox") -> str:
    body: dict[str, Any] = {"webhook": receiver.url}
    if events is not None:
        body["webhook_events_filter"] = events
    id: str = provider.create(prompt, body=body).json()["id"]
    return id


def statuses(receiver: Receiver) -> list[str]:
    return [json.loads(body)["status"] for _, body in receiver.got]


def secret(provider: Provider) -> str:
    key: str = provider.http.get("/webhooks/default/secret").json()["key"]
    return key


def test_the_body_is_the_prediction_and_the_signature_is_true() -> None:
    with emulating() as provider, receiving() as receiver:
        id = ask(provider, receiver, ["completed"])
        until(lambda: receiver.got)
        headers, body = receiver.got[0]
        Webhook(secret(provider)).verify(body, headers)
        assert json.loads(body) == provider.get(id)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret(provider)).verify(body + b" ", headers)


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        (["completed"], ["succeeded"]),
        (["start", "completed"], ["processing", "succeeded"]),
        (None, ["processing", "succeeded"]),
        (["start"], ["processing"]),
    ],
)
def test_only_the_events_that_were_asked_for_are_sent(events: list[str] | None, wanted: list[str]) -> None:
    with emulating() as provider, receiving() as receiver:
        provider.ended(ask(provider, receiver, events))
        until(lambda: len(receiver.got) == len(wanted))
        provider.made("another, so that anything superfluous would have come")
        assert statuses(receiver) == wanted


def test_logs_are_told_while_it_runs() -> None:
    slow = EmulatorOptions(image_s=1.2, render="tiny")
    with emulating(slow) as provider, receiving() as receiver:
        provider.ended(ask(provider, receiver, ["logs"]))
        assert any("%|" in json.loads(body)["logs"] for _, body in receiver.got)


def test_a_final_webhook_is_sent_again_until_taken_with_the_same_id() -> None:
    with emulating() as provider, receiving() as receiver:
        receiver.statuses = [500, 404]
        ask(provider, receiver, ["completed"])
        until(lambda: len(provider.ledger["webhooks"]) == 3)
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
        attempts = provider.ledger["webhooks"]
        assert [(a["attempt"], a["status"]) for a in attempts] == [(1, 500), (2, 404), (3, 200)]


def test_it_gives_up_in_the_end() -> None:
    with emulating() as provider, receiving() as receiver:
        receiver.statuses = [500] * 9
        ask(provider, receiver, ["completed"])
        until(lambda: len(provider.ledger["webhooks"]) == 4)
        provider.made("time passes")
        assert len(receiver.got) == 4


def test_a_webhook_on_the_way_is_sent_once_and_a_redirect_not_followed() -> None:
    with emulating() as provider, receiving() as receiver:
        receiver.statuses = [500, 301]
        ask(provider, receiver, ["start", "completed"])
        until(lambda: len(provider.ledger["webhooks"]) == 2)
        provider.made("time passes")
        assert statuses(receiver) == ["processing", "succeeded"]


def test_nobody_listening_is_no_failure() -> None:
    with emulating() as provider:
        body = {"webhook": "http://127.0.0.1:9/", "webhook_events_filter": EVERYTHING}
        assert provider.made(body=body)["status"] == "succeeded"
        until(lambda: [a["attempt"] for a in provider.ledger["webhooks"] if a["event"] == "completed"][-1:] == [4])
        assert {a["status"] for a in provider.ledger["webhooks"]} == {None}


def test_a_lost_webhook_never_comes() -> None:
    with emulating() as provider, receiving() as receiver:
        provider.spoil({"kind": "webhook_lost", "times": 1})
        provider.ended(ask(provider, receiver, ["completed"], "lost"))
        provider.ended(ask(provider, receiver, ["completed"], "kept"))
        until(lambda: receiver.got)
        assert [json.loads(body)["input"]["prompt"] for _, body in receiver.got] == ["kept"]
        assert [a["attempt"] for a in provider.ledger["webhooks"]] == [0, 1]


def test_a_duplicate_has_the_same_id() -> None:
    with emulating() as provider, receiving() as receiver:
        provider.spoil({"kind": "webhook_duplicate", "count": 3})
        ask(provider, receiver, ["completed"])
        until(lambda: len(receiver.got) == 3)
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


def test_a_late_one_comes_after_the_end() -> None:
    with emulating() as provider, receiving() as receiver:
        provider.spoil({"kind": "webhook_late", "delay_s": 0.7, "events": ["completed"]})
        provider.ended(ask(provider, receiver, ["completed"]))
        assert receiver.got == []
        until(lambda: receiver.got)


def test_out_of_order_means_the_start_comes_last() -> None:
    with emulating() as provider, receiving() as receiver:
        provider.spoil({"kind": "webhook_out_of_order"})
        ask(provider, receiver, ["start", "completed"])
        until(lambda: len(receiver.got) == 2)
        assert statuses(receiver) == ["succeeded", "processing"]


def test_a_bad_signature_does_not_verify() -> None:
    with emulating() as provider, receiving() as receiver:
        provider.spoil({"kind": "webhook_bad_signature"})
        ask(provider, receiver, ["completed"])
        until(lambda: receiver.got)
        headers, body = receiver.got[0]
        with pytest.raises(WebhookVerificationError):
            Webhook(secret(provider)).verify(body, headers)


def test_a_webhook_may_come_before_the_answer() -> None:
    with emulating() as provider, receiving() as receiver:
        provider.spoil({"kind": "webhook_before_answer"})
        answer = provider.create(body={"webhook": receiver.url, "webhook_events_filter": ["completed"]})
        assert [json.loads(body)["id"] for _, body in receiver.got] == [answer.json()["id"]]
