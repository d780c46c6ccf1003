"""Stored facts about a device: labels are cleaned, addresses are cut off."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.devices import LONGEST_LABEL, clean_label, network_of


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Firefox, Windows", "Firefox, Windows"),
        ("  the tablet\r\nin\tthe kitchen ", "the tablet in the kitchen"),
        ("台所のタブレット", "台所のタブレット"),
        ("\x00\x1b[31mred\x7f\x9b", "[31mred"),
        ("a\u202egnp.exe\u2066b\ufeff", "agnp.exeb"),  # turns the text around
        ("a\u2028b\u2029c\u0085d", "a b c d"),
        ("\ud800x", "x"),  # no database takes one half of a character
        ("\U000e0041\ue000x", "x"),  # tags, and what has no meaning
        ("👩\u200d💻", "👩\u200d💻"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("", None),
        (" \n\t\x00", None),
    ],
)
def test_a_label_is_one_line_of_visible_characters(text: str, label: str | None) -> None:
    """Characters that control a terminal or a page's direction are left out; those that write words and emoji are
    not."""
    assert clean_label(text) == label


def test_a_long_label_is_cut() -> None:
    """The label is cut by characters, whatever it is made of; and no blank is left where it was cut."""
    assert clean_label("x" * 10_240) == "x" * LONGEST_LABEL
    assert clean_label("日" * 10_240) == "日" * LONGEST_LABEL
    assert clean_label("\x00" * 10_240 + "x") is None
    assert clean_label("x" * (LONGEST_LABEL - 1) + " y") == "x" * (LONGEST_LABEL - 1)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("255.255.255.255", "255.255.255.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        ("::1", "::/48"),
        (None, None),
        ("", None),
        ("unix:", None),
        ("203.0.113.77, 10.0.0.1", None),
        ("203.0.113.77:443", None),
        ("1" * 10_240, None),
    ],
)
def test_an_address_is_cut_to_its_network(address: str | None, network: str | None) -> None:
    """Text that is no single address gives None."""
    assert network_of(address) == network
