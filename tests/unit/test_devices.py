"""Facts about a device, read from a request that signs a user in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from flask import Flask, Request

from flask_langpont_session.config.settings import Settings
from flask_langpont_session.devices import device_reader
from flask_langpont_session.policy.devices import NO_DEVICE, Device

BROWSERS = {
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:130.0) Gecko/20100101 Firefox/130.0": "Firefox, Windows",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
    "Safari/605.1.15": "Safari, Mac OS X",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
    "Mobile/15E148 Safari/604.1": "Mobile Safari, iOS",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile "
    "Safari/537.36": "Chrome Mobile, Android",
    "curl/8.9.1": "curl",
}


@pytest.fixture
def read() -> Callable[..., Device]:
    """Return a function that reads the device of a request, under given settings."""

    def read(labels: Any = None, networks: bool = False, **request: Any) -> Device:
        settings = cast(Settings, type("Given", (), {"device_labels": labels, "device_networks": networks}))
        with Flask("app").test_request_context(**request):
            return device_reader(settings)()

    return read


@pytest.mark.parametrize("user_agent", BROWSERS)
def test_browser_and_system_are_named_by_their_families(read: Callable[..., Device], user_agent: str) -> None:
    """Versions are left out, which change every month."""
    assert read("user_agent", headers={"User-Agent": user_agent}) == Device(BROWSERS[user_agent])


@pytest.mark.parametrize("user_agent", ["", "\x00", "x" * 10_240, "(" * 10_240, "😀", " "])
def test_what_no_rule_knows_has_no_label(read: Callable[..., Device], user_agent: str) -> None:
    """Only the beginning of a long one is looked at, so that it does not take long."""
    assert read("user_agent", environ_base={"HTTP_USER_AGENT": user_agent}) == NO_DEVICE


def test_a_label_is_asked_of_the_application(read: Callable[..., Device]) -> None:
    """The application is given the request, and its label is cleaned like any other."""

    def label(request: Request) -> str:
        return f"  {request.headers['X-App']}\x00 " + "x" * 10_240

    found = read(label, headers={"X-App": "Kiosk"}).label
    assert found is not None and found.startswith("Kiosk xxx") and len(found) == 100


@pytest.mark.parametrize("answer", [7, b"kiosk", ["kiosk"], ZeroDivisionError("secret")])
def test_a_label_that_cannot_be_made_is_logged(
    read: Callable[..., Device], caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    """The user is signed in all the same."""

    def label(request: Request) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert read(label) == NO_DEVICE
    assert "LANGPONT_SESSION_DEVICE_LABELS" in caplog.text


def test_only_the_address_that_flask_says_is_believed(read: Callable[..., Device]) -> None:
    """Any client may send a forwarding header."""
    forged = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "Forwarded", "CF-Connecting-IP"), "198.51.100.7")
    found = read(networks=True, headers=forged, environ_base={"REMOTE_ADDR": "203.0.113.77"})
    assert found == Device(network="203.0.113.0/24")


def test_what_is_not_asked_for_is_not_read(read: Callable[..., Device]) -> None:
    """Neither labels nor networks are asked for by default."""
    assert read(headers={"User-Agent": "curl/8.9.1"}, environ_base={"REMOTE_ADDR": "203.0.113.77"}) == NO_DEVICE


def test_outside_of_a_request_there_is_no_device() -> None:
    """Outside of a request, as where a command signs a user in, there is no device."""
    settings = cast(Settings, type("Given", (), {"device_labels": "user_agent", "device_networks": True}))
    assert device_reader(settings)() == NO_DEVICE
