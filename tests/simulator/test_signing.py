"""The signature covers the bytes as sent; the time rule is exact. Vectors: Binance's documents, fact sheet 4.1."""

import pytest

from bot.simulator.signing import signature, unsigned
from tests.simulator.support import NOW, ORDER, Desk, query_of, sign

SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
API_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
A = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
VECTORS = {
    "A in the query": (A, "", "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
    "A in the body": ("", A, "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
    "B mixed, nothing in between": (
        "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC",
        "quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559",
        "0fd168b8ddb4876a0358a8d14d0c9f3da0e9b20c5d52b2a00fcf7d1c602f9a77",
    ),
    "C percent-encoded": (
        A.replace("LTCBTC", "%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96"),
        "",
        "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_published_vectors(name: str) -> None:
    query, body, expected = VECTORS[name]
    assert signature(SECRET, query.encode() + body.encode()) == expected


@pytest.mark.parametrize("name", VECTORS)
def test_published_vectors_pass_the_door(name: str) -> None:
    """Signed with the documents' key at the documents' time, all but the symbol is in order: -1121."""
    query, body, expected = VECTORS[name]
    desk = Desk()
    desk.exchange.api_key, desk.exchange.api_secret = API_KEY, SECRET
    desk.clock._now_ms = 1499827319559 + 1000
    form = {"content_type": "application/x-www-form-urlencoded"} if body else {}
    good = f"{query}&signature={expected}" if not body else query
    sent_body = f"{body}&signature={expected}" if body else ""
    assert desk.send("POST", ORDER, good, sent_body, x_mbx_apikey=API_KEY, **form).error == (
        400,
        -1121,
        "Invalid symbol.",
    )
    bad = good.replace(expected, expected[:-1] + "0"), sent_body.replace(expected, expected[:-1] + "0")
    assert desk.send("POST", ORDER, *bad, x_mbx_apikey=API_KEY, **form).code == -1022


def test_vector_d_is_the_same_hmac() -> None:
    payload = (
        f"apiKey={API_KEY}&price=52000.00&quantity=0.01000000&recvWindow=100&side=SELL&symbol=BTCUSDT"
        "&timeInForce=GTC&timestamp=1645423376532&type=LIMIT"
    )
    assert signature(SECRET, payload.encode()) == "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24"


@pytest.mark.parametrize(
    ("raw", "rest"),
    [
        (b"a=1&signature=x", b"a=1"),
        (b"signature=x&a=1", b"a=1"),
        (b"a=1&signature=x&b=2", b"a=1&b=2"),
        (b"a=%20+&mysignature=x", b"a=%20+&mysignature=x"),
        (b"signature=x", b""),
        (b"", b""),
    ],
)
def test_only_the_signature_is_taken_out(raw: bytes, rest: bytes) -> None:
    assert unsigned(raw) == rest


def test_signature_may_stand_anywhere_and_in_either_case(desk: Desk) -> None:
    payload = f"timestamp={NOW}&recvWindow=5000"
    good = sign(desk.secret, payload)
    for query in (f"signature={good}&{payload}", f"timestamp={NOW}&signature={good.upper()}&recvWindow=5000"):
        assert desk.send("GET", "/api/v3/account", query, x_mbx_apikey=desk.key).status == 200


def test_signing_unencoded_and_sending_encoded_is_refused(desk: Desk) -> None:
    plain = f'symbols=["BTCUSDT"]&timestamp={NOW}'
    encoded = query_of({"symbols": '["BTCUSDT"]', "timestamp": NOW})
    answer = desk.send(
        "GET", "/api/v3/openOrders", f"{encoded}&signature={sign(desk.secret, plain)}", x_mbx_apikey=desk.key
    )
    assert answer.code == -1104  # symbols is unknown here: parameters come before the signature
    encoded = query_of({"symbol": "BTC.USDT", "timestamp": NOW}).replace(".", "%2E")
    answer = desk.send(
        "GET",
        "/api/v3/openOrders",
        f"{encoded}&signature={sign(desk.secret, encoded.replace('%2E', '.'))}",
        x_mbx_apikey=desk.key,
    )
    assert answer.error == (400, -1022, "Signature for this request is not valid.")


def test_key_is_looked_at_first(desk: Desk) -> None:
    answer = desk.send("POST", ORDER, "nonsense=1")
    assert answer.error == (401, -2014, "API-key format invalid.")
    assert desk.send("POST", ORDER, "nonsense=1", x_mbx_apikey="short").code == -2014
    answer = desk.send("POST", ORDER, "nonsense=1", x_mbx_apikey="a" * 64)
    assert answer.error == (401, -2015, "Invalid API-key, IP, or permissions for action.")


AHEAD = "Timestamp for this request was 1000ms ahead of the server's time."
OUTSIDE = "Timestamp for this request is outside of the recvWindow."


@pytest.mark.parametrize(
    ("offset", "window", "text"),
    [
        (999, None, None),
        (1000, None, AHEAD),
        (-5000, None, None),
        (-5001, None, OUTSIDE),
        (-100, "100", None),
        (-101, "100", OUTSIDE),
        (-60000, "60000", None),
        (-6001, "6000.999", OUTSIDE),
        (-6000, "6000.346", None),
        (-1, "0", OUTSIDE),
        (0, "0", None),
    ],
)
def test_the_rule_of_time(desk: Desk, offset: int, window: str | None, text: str | None) -> None:
    more = {} if window is None else {"recvWindow": window}
    answer = desk.signed("GET", "/api/v3/openOrders", timestamp=NOW + offset, **more)
    assert (answer.status, None) == (200, text) if text is None else answer.error == (400, -1021, text)


def test_microseconds_on_com_only(desk: Desk) -> None:
    assert desk.signed("GET", "/api/v3/openOrders", timestamp=NOW * 1000 + 999).status == 200
    assert desk.signed("GET", "/api/v3/openOrders", timestamp=(NOW + 1000) * 1000).msg == AHEAD
    assert Desk("us").signed("GET", "/api/v3/openOrders", timestamp=NOW * 1000).msg == AHEAD


def test_recv_window_form(desk: Desk) -> None:
    def ask(window: str) -> int:
        answer = desk.signed("GET", "/api/v3/openOrders", recvWindow=window)
        return 0 if answer.status == 200 else answer.code

    assert [ask(w) for w in ("60000", "60001", "5000.5", "5000.1234", "-1", "1e3")] == [
        0,
        -1131,
        0,
        -1100,
        -1100,
        -1100,
    ]
    assert Desk("us").signed("GET", "/api/v3/openOrders", recvWindow="5000.5").code == -1100


def test_time_comes_before_the_signature(desk: Desk) -> None:
    query = f"timestamp={NOW - 5001}&signature=00"
    assert desk.send("GET", "/api/v3/openOrders", query, x_mbx_apikey=desk.key).code == -1021
    query = f"timestamp={NOW}&signature=00"
    assert desk.send("GET", "/api/v3/openOrders", query, x_mbx_apikey=desk.key).code == -1022
    answer = desk.send("GET", "/api/v3/openOrders", f"timestamp={NOW}", x_mbx_apikey=desk.key)
    assert answer.error == (
        400,
        -1102,
        "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.",
    )
    answer = desk.send("GET", "/api/v3/openOrders", "signature=00", x_mbx_apikey=desk.key)
    assert answer.code == -1102
    assert "'timestamp'" in answer.msg
