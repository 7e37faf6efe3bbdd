"""A proxy in front that the service was not told of is noticed: by the log, a metric and the doctor."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import structlog
from emulating import emulating
from gateway import new_gateway
from starlette.types import Scope
from test_cli import reelhook
from webserving import ask, until

from backend.web.calls.proxies import AGAIN_S, MOST_PEERS, Lookout

pytestmark = pytest.mark.hazard(58)


def came(peer: str, *headers: str) -> Scope:
    return {"type": "http", "client": (peer, 1), "headers": [(name.encode(), b"9.9.9.9") for name in headers]}


def test_each_peer_is_named_once_in_five_minutes() -> None:
    now = 0.0
    lookout = Lookout((ip_network("10.0.0.0/8"),), clock=lambda: now)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            for header in ("x-forwarded-for", "forwarded", "x-real-ip"):
                lookout.look(came("192.0.2.1", "host", header))
            lookout.look(came("10.0.0.1", "x-forwarded-for"))
            lookout.look(came("::ffff:10.0.0.1", "x-forwarded-for"))
            lookout.look(came("192.0.2.2", "host", "x-forwarded-proto"))
        assert [(line["event"], line["peer"]) for line in lines] == [("untrusted_proxy", "192.0.2.1")]
        assert "TRUSTED_PROXIES" in lines[0]["why"]
        now = AGAIN_S + 1
        lookout.look(came("192.0.2.1", "forwarded"))
        assert len(lines) == 2


def test_who_plays_many_proxies_fills_no_log() -> None:
    lookout = Lookout((), clock=lambda: 0.0)
    with structlog.testing.capture_logs() as lines:
        for number in range(200):
            lookout.look(came(f"192.0.2.{number}", "x-forwarded-for"))
    assert len(lines) == MOST_PEERS


@pytest.mark.story
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", ""])
def test_serve_and_the_doctor_warn_of_a_proxy_that_is_not_named(tmp_path: Path, proxy: str) -> None:
    """Also where the proxy in front keeps the metrics to itself: then the service is asked where it runs."""
    with emulating() as provider:
        service = new_gateway(tmp_path, provider, AUTH_MODE="keys")
        seen = service.settings | {"REELHOOK_URL": service.origin, "BASE_URL": proxy or service.origin}

        def doctor() -> dict[str, Any]:
            done = reelhook("doctor", "--json", cwd=tmp_path, **seen)
            return next(one for one in json.loads(done.stdout)["checks"] if one["name"] == "TRUSTED_PROXIES")

        try:
            assert "no service could be asked" in doctor()["advice"]
            service.start()
            assert (doctor()["state"], "saw no other" in doctor()["advice"]) == ("ok", True)
            port = int(service.origin.rpartition(":")[2])
            for _ in range(3):
                ask(port, "GET", "/api/v2/campaigns", key="sk_junk", headers={"X-Forwarded-For": "203.0.113.9"})
            until(lambda: "untrusted_proxy" in service.log())
            assert service.log().count('"event": "untrusted_proxy"') == 1
            found = doctor()
            assert (found["state"], "untrusted_proxy" in found["advice"]) == ("warn", True)
            assert service.stop() == 0
        finally:
            service.abandon()
            service.close()
