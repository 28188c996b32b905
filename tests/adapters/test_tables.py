"""The tables of errors and hosts are whole."""

from urllib.parse import urlsplit

import pytest

from bot.adapters.binance import PROFILES
from bot.adapters.binance.errors import (
    _BY_REACTION,
    CODES,
    CODES_WITH_TEXTS,
    HINTS,
    REGION_BLOCKED,
    Hold,
    Reaction,
    describe,
    hold_after,
    reaction_to,
)


def test_each_code_has_one_reaction():
    assert len(CODES) == sum(len(codes) for codes in _BY_REACTION.values())


def test_whatever_needs_a_human_says_the_fix():
    assert set(HINTS) == {code for code, reaction in CODES.items() if reaction is Reaction.HALT}
    assert set(CODES) >= CODES_WITH_TEXTS


@pytest.mark.parametrize(
    ("status", "code", "message", "reaction"),
    [
        (429, -1015, "", Reaction.WAIT),
        (418, 0, "", Reaction.WAIT),
        (451, 0, "", Reaction.HALT),
        (503, -2010, "Account has insufficient balance for requested action.", Reaction.ASK),
        (400, -2010, "Duplicate order sent.", Reaction.ASK),
        (400, -2010, "a text of tomorrow", Reaction.STOP_REQUEST),
        (400, -1111, "Duplicate order sent.", Reaction.REFRESH_FILTERS),
        (400, -4711, "", Reaction.ASK),
        (404, 0, "", Reaction.ASK),
    ],
)
def test_reactions(status, code, message, reaction):
    assert reaction_to(status, code, message) is reaction


@pytest.mark.parametrize(
    ("status", "code", "message", "retry_after", "held"),
    [
        (429, -1003, "", "7", (Hold.ALL, 7_000)),
        (429, -1003, "", None, (Hold.ALL, 60_000)),
        (429, 0, "", "soon", (Hold.ALL, 60_000)),
        (400, -1003, "Too many requests queued.", None, (Hold.ALL, 60_000)),
        (418, -1003, "", "120", (Hold.ALL, 120_000)),
        (418, -1003, "IP banned until 1795557100000. Please", None, (Hold.ALL, 40_000)),
        (418, -1003, "IP banned until 1795557000000. Please", None, (Hold.ALL, 0)),
        (418, 0, "", None, (Hold.ALL, 120_000)),
        (403, 0, "", None, (Hold.ALL, 120_000)),
        (429, -1015, "", "3", (Hold.ORDERS, 3_000)),
        (429, -1015, "current limit is 100 orders per 10 SECOND.", None, (Hold.ORDERS, 10_000)),
        (429, -1015, "current limit is 200000 orders per 1 DAY.", None, (Hold.ORDERS, 7_740_000)),
        (429, -1015, "no window named", None, (Hold.ORDERS, 10_000)),
        (429, -1015, "0 orders per 0 DAY", None, (Hold.ORDERS, 10_000)),
        (503, -1008, "", None, (Hold.ENTRIES, 60_000)),
        (503, -1008, "", "5", (Hold.ENTRIES, 5_000)),
        (400, -2010, "", "5", None),
        (403, -2015, "", None, None),
        (503, 0, "", "5", None),
    ],
)
def test_what_may_not_leave_after_a_reply(status, code, message, retry_after, held):
    now = 1_795_557_060_000  # 21:51:00 UTC, 129 minutes before the day ends
    assert hold_after(status, code, message, retry_after, now) == held


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
