"""Reads what is stored of the device on which a user signs in, where a setting asks for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Request, has_request_context, request

from .policy.devices import NO_DEVICE, Device, clean_label, network_of
from .support.logs import fields

if TYPE_CHECKING:
    from .config.settings import Settings

log = logging.getLogger(__name__)

LONGEST_USER_AGENT = 512
"""Characters that are looked at. A browser's has two hundred; the time that the parser takes grows with them."""

ReadLabel = Callable[[Request], str | None]


def device_reader(settings: Settings) -> Callable[[], Device]:
    """Return a function that gives, in a request that signs a user in, what is to be stored of its device."""
    made, has_network = settings.device_labels, settings.device_networks
    if made is None and not has_network:
        return lambda: NO_DEVICE
    read = user_agent_reader() if isinstance(made, str) else made

    def device() -> Device:
        if not has_request_context():
            return NO_DEVICE
        # Only what Flask says, which is what ProxyFix made of it: any client may send a forwarding header.
        network = network_of(request.remote_addr) if has_network else None
        return Device(None if read is None else _label(read), network)

    return device


def _label(read: ReadLabel) -> str | None:
    """Return the label of the device; None if none can be made: a sign-in does not fail for that."""
    try:
        label = read(request._get_current_object())  # type: ignore[attr-defined]
    except Exception:  # whatever the application's own callable raises
        log.exception(
            "LANGPONT_SESSION_DEVICE_LABELS failed; the session has no label", extra=fields("device_labels_failed")
        )
        return None
    if label is None or isinstance(label, str):
        return label and clean_label(label)
    returned = type(label).__name__
    log.error(
        "LANGPONT_SESSION_DEVICE_LABELS returned a value of type %s, not a text or None; the session has no label",
        returned,
        extra=fields("device_label_unusable", returned=returned),
    )
    return None


def user_agent_reader() -> ReadLabel:
    """Return a function that makes labels of User-Agents, by the rules of ua-parser: ``Firefox, Windows``, without
    versions."""
    import ua_parser

    wanted = ua_parser.Domain.USER_AGENT | ua_parser.Domain.OS

    def read(request: Request) -> str | None:
        found = ua_parser.parser(request.user_agent.string[:LONGEST_USER_AGENT], wanted)
        return ", ".join(one.family for one in (found.user_agent, found.os) if one is not None) or None

    return read
