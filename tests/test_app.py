"""The parts put together: who may run it open to everybody, and what a listener says."""

from __future__ import annotations

import pytest

from backend.app import check_dev_mode
from backend.config import Settings, is_public
from backend.core.errors import SettingsError


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "example.com"])
@pytest.mark.hazard(24)
def test_dev_mode_is_refused_on_an_address_others_can_reach(host: str) -> None:
    with pytest.raises(SettingsError, match="this machine alone"):
        check_dev_mode(Settings(auth_mode="dev", _env_file=None), host)


@pytest.mark.parametrize("url", ["https://api.example.com", "http://0.0.0.0:8000", "http://localhost.example.com"])
@pytest.mark.hazard(24)
def test_dev_mode_is_refused_with_a_base_url_that_is_not_loopback(url: str) -> None:
    for name in ("base_url", "ngrok_url"):
        with pytest.raises(SettingsError, match="this machine alone"):
            check_dev_mode(Settings(auth_mode="dev", _env_file=None, **{name: url}), "127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_dev_mode_is_for_loopback(host: str) -> None:
    check_dev_mode(Settings(auth_mode="dev", base_url="http://localhost:8000", _env_file=None), host)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://reelhook.example.com", True),
        ("http://localhost:8000", False),
        ("http://127.0.0.1", False),
        ("http://[::1]:9", False),
        ("http://0.0.0.0:8000", False),
    ],
)
def test_an_address_is_public_unless_only_this_machine_can_mean_it(url: str, public: bool) -> None:
    assert is_public(url) is public
