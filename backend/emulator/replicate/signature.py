"""Webhooks are signed as Standard Webhooks."""

from __future__ import annotations

from datetime import UTC, datetime

from standardwebhooks import Webhook

from backend.emulator.kit.provider import Message


def headers(message: Message, secret: str) -> dict[str, str]:
    at = datetime.now(UTC)
    return {
        "content-type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message.id, at, message.body),
    }
