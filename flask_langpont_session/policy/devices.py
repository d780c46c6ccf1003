"""Data about a device that is stored beside its session, and the sessions of a user as that user is shown them."""

from __future__ import annotations

import unicodedata
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

from .rows import AuthRow

LONGEST_LABEL = 100
"""Characters; the width of the column."""

_MOST_READ = 1000
"""Characters of a label that are looked at: what is in front of the rest."""

_JOINERS = "\u200c\u200d"
"""Invisible characters that are kept, because words (in Persian, for example) and emoji are written with them."""

_PREFIXES = {4: 24, 6: 48}
"""Version of IP → bits of an address that are kept: the part that a provider gives to many, or to one house."""


class Device(NamedTuple):
    """The data about a device that is stored beside its session.

    :param label: for its user to know it by; None: none.
    :param network: from where the user signed in; None: that is not stored.
    """

    label: str | None = None
    network: str | None = None


NO_DEVICE = Device()


class DescribedRow(NamedTuple):
    """A row with what only its user or an operator asks for. Times are milliseconds since 1970 by the database's clock.

    :param seen_at: when its use was noted last; None: that is not known.
    :param successor: the digest under which the session goes on; None: under none.
    :param updated_at: when it was changed last; a moved idle expiry is no change. 0: that was not asked for.
    :param ended_by: what ended it, where the row says so.
    :param is_mine: it is of the session that asks.
    """

    row: AuthRow
    device: Device = NO_DEVICE
    seen_at: int | None = None
    successor: str | None = None
    updated_at: int = 0
    ended_by: str | None = None
    is_mine: bool = False


def clean_label(text: str) -> str | None:
    """Return a label as it is stored and shown: one line of at most :data:`LONGEST_LABEL` characters, without what
    controls a terminal or turns the text around. None: nothing is left."""
    visible = "".join(_visible(character) for character in text[:_MOST_READ])
    return " ".join(visible.split())[:LONGEST_LABEL].rstrip() or None


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace():
        return " "
    return "" if category[0] == "C" and character not in _JOINERS else character


def network_of(address: str | None) -> str | None:
    """Return the network of an IP address, with the rest of the address cut off.

    >>> network_of("203.0.113.77"), network_of("2001:db8:1:2::3")
    ('203.0.113.0/24', '2001:db8:1::/48')

    :return: None: that is no IP address, as of a request over a Unix socket.
    """
    try:
        known = ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(known, IPv6Address) and known.ipv4_mapped is not None:
        known = known.ipv4_mapped
    return str(ip_network((known, _PREFIXES[known.version]), strict=False))
