"""The tables of errors and hosts are whole."""

from urllib.parse import urlsplit

import pytest

from bot.adapters.binance import PROFILES
from bot.adapters.binance.errors import (
    _BY_REACTION,
    CODES,
    ENGINE_CODES,
    HINTS,
    REGION_BLOCKED,
    Reaction,
    describe,
    reaction_to,
)


def test_each_code_has_one_reaction():
    assert len(CODES) == sum(len(codes) for codes in _BY_REACTION.values())


def test_whatever_needs_a_human_says_the_fix():
    assert set(HINTS) == {code for code, reaction in CODES.items() if reaction is Reaction.HALT}
    assert set(CODES) >= ENGINE_CODES


@pytest.mark.parametrize(
    ("status", "code", "message", "reaction"),
    [
        (429, -1015, "", Reaction.WAIT),
        (418, 0, "", Reaction.WAIT),
        (451, 0, "", Reaction.HALT),
        (503, -2010, "Account has insufficient balance for requested action.", Reaction.ASK),
        (400, -2010, "Duplicate order sent.", Reaction.ASK),
        (400, -2010, "a text of tomorrow", Reaction.STOP),
        (400, -1013, "Duplicate order sent.", Reaction.STOP),
        (400, -4711, "", Reaction.ASK),
        (404, 0, "", Reaction.ASK),
    ],
)
def test_reactions(status, code, message, reaction):
    assert reaction_to(status, code, message) is reaction


def test_a_description_is_one_short_line():
    assert describe(400, -1100, "a\nb " * 200) == ("a b " * 200)[:200]
    assert describe(451, 0, "") == REGION_BLOCKED
    assert describe(502, 0, "") == "HTTP 502 without a reason"


def test_hosts_are_scheme_host_and_port():
    assert PROFILES["us"].testnet is None
    for hosts in (PROFILES["com"].live, PROFILES["com"].testnet, PROFILES["us"].live):
        rest, stream, api = urlsplit(hosts.rest_url), urlsplit(hosts.ws_url), urlsplit(hosts.ws_api_url)
        assert (rest.scheme, stream.scheme, api.scheme) == ("https", "wss", "wss")
        assert (rest.path, stream.path, api.path) == ("", "", "/ws-api/v3")
