"""Moved by hand: one kline a call, exactly the files', orders filled at its close; and files played by themselves."""

import gzip
import zipfile
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
import websocket

from bot.simulator import SimulatorError
from bot.simulator.replay import read_tapes
from tests.simulator.support import NOW, Desk, running, write_klines

D = Decimal


def test_files_are_merged_by_close_time_and_end_with_null(tmp_path: Path) -> None:
    first = 1_600_000_020_000
    files = (
        write_klines(tmp_path / "ETHUSDT-1m-a.csv", ["300.5", "301"], first),
        write_klines(tmp_path / "BTCUSDT-1m-a.csv", ["10000.1", "10001", "10002"], first - 60_000),
    )
    with running(files=files, step=True) as client:
        socket = client.socket("/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m")
        answers = []
        while (answer := client.control("next").json) is not None:
            answers.append(answer)
            assert socket.read()["data"] == answer
        assert client.control("next").json is None
        socket.raw.settimeout(0.2)
        with pytest.raises(websocket.WebSocketTimeoutException):
            socket.read()
        socket.raw.shutdown()
        rows = client.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000).json
    assert [(a["s"], D(a["k"]["c"])) for a in answers] == [
        ("BTCUSDT", D("10000.1")),
        ("ETHUSDT", D("300.5")),
        ("BTCUSDT", D("10001")),
        ("ETHUSDT", D("301")),
        ("BTCUSDT", D("10002")),
    ]
    assert all(a["k"]["x"] for a in answers)
    begin = answers[0]["k"]["t"]
    assert begin % 60_000 == 0
    assert [a["k"]["t"] - begin for a in answers] == [0, 60_000, 60_000, 120_000, 120_000]
    assert [row[0] for row in rows[-3:]] == [begin, begin + 60_000, begin + 120_000]
    assert len(rows) == 1000
    assert rows[-4][6] == begin - 1
    assert abs(begin - answers[0]["E"]) < 120_000


def test_orders_fill_at_the_close_without_spread_or_end(tmp_path: Path) -> None:
    files = (write_klines(tmp_path / "DOGEUSDT-1m-x.csv", ["0.3150246", "0.3166688", "0.28"]),)
    desk = Desk(files=files, step=True)
    desk.exchange.next_step()
    bought = desk.order(symbol="DOGEUSDT", quantity="3174").json
    assert [f["price"] for f in bought["fills"]] == ["0.31502460"]
    assert bought["cummulativeQuoteQty"] == f"{3174 * D('0.3150246'):.8f}"
    assert bought["fills"][0]["commission"] == "3.17400000"
    resting = desk.limit(symbol="DOGEUSDT", quantity="100", price="0.3").json
    assert resting["status"] == "NEW"
    desk.exchange.next_step()
    sold = desk.order(symbol="DOGEUSDT", side="SELL", quantity="3170").json
    quote = 3170 * D("0.3166688")
    assert (sold["status"], D(sold["cummulativeQuoteQty"])) == ("FILLED", quote)
    assert D(sold["fills"][0]["commission"]) == (quote * D("0.001")).quantize(D("1e-8"), "ROUND_UP")
    desk.exchange.next_step()
    assert desk.signed("GET", "/api/v3/allOrders", symbol="DOGEUSDT").json[1]["status"] == "FILLED"
    info = desk.get("/api/v3/exchangeInfo", symbol="DOGEUSDT").json["symbols"][0]["filters"]
    assert next(f for f in info if f["filterType"] == "NOTIONAL")["avgPriceMins"] == 0


def test_a_set_price_replaces_the_next_close(tmp_path: Path) -> None:
    desk = Desk(files=(write_klines(tmp_path / "BTCUSDT-1m-x.csv", ["100", "101"]),), step=True)
    desk.exchange.set_price("BTCUSDT", D("150"))
    served = desk.exchange.next_step()
    assert served is not None
    assert (served[2].close, served[2].high, served[2].low) == (150, 150, 100)
    after = desk.exchange.next_step()
    assert after is not None
    assert after[2].close == 101


def test_made_up_markets_step_in_turn() -> None:
    desk = Desk(symbols=("BTCUSDT", "ETHUSDT"), step=True)
    served = [desk.exchange.next_step() for _ in range(6)]
    assert [s[0] for s in served if s] == ["BTCUSDT", "ETHUSDT"] * 3
    opens = [s[2].open_time for s in served if s]
    assert opens == [opens[0] + 60_000 * (n // 2) for n in range(6)]
    assert opens[0] == NOW - NOW % 60_000 + 60_000
    assert all(s[2].low <= s[2].close <= s[2].high for s in served if s)
    rows = desk.get("/api/v3/klines", symbol="BTCUSDT", interval="1m").json
    assert all(a[6] + 1 == b[0] for a, b in pairwise(rows))


def test_nothing_moves_by_itself() -> None:
    with running(step=True, symbols=("BTCUSDT",)) as client:
        socket = client.socket("/ws/btcusdt@kline_1m")
        socket.raw.settimeout(0.2)
        with pytest.raises(websocket.WebSocketTimeoutException):
            socket.read()
        socket.raw.shutdown()


def test_files_play_by_themselves_and_close_exactly(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1m-x.csv"
    first = 1_600_000_020_000
    # Each plays for 0.1 s: enough of them, however late somebody listens.
    rows = [f"{first + n * 60_000},{100 + n},{110 + n},{90 + n},{105 + n},12.5,,,,,," for n in range(900)]
    path.write_text("open_time,open,high,low,close,volume,c,q,n,a,b,i\n" + "\n".join(rows) + "\n")
    with running(files=(path,), speed=D(600), interval_ms=20) as client:
        socket = client.socket("/ws/btcusdt@kline_1m")
        events = []
        while len([e for e in events if e["k"]["x"]]) < 5:
            events.append(socket.read())
        socket.close()
        klines = client.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000).json
    closed = [e["k"] for e in events if e["k"]["x"]]
    for k in closed:
        n = int(D(k["o"])) - 100
        assert [D(k[x]) for x in "ohlcv"] == [100 + n, 110 + n, 90 + n, 105 + n, D("12.5")]
        row = next(r for r in klines if r[0] == k["t"])
        assert row[1:6] == [k[x] for x in "ohlcv"]
    keys = [(e["k"]["t"], e["k"]["x"], e["E"]) for e in events]
    assert keys == sorted(keys)
    partial = [e["k"] for e in events if not e["k"]["x"]]
    assert partial
    assert all(D(k["l"]) <= D(k["c"]) <= D(k["h"]) for k in partial)
    assert len(klines) == 1000


def test_playing_begins_inside_the_running_minute(tmp_path: Path) -> None:
    desk = Desk(files=(write_klines(tmp_path / "BTCUSDT-1m-x.csv", ["100", "101"]),))
    desk.exchange.advance("BTCUSDT", True)
    current = desk.exchange.markets["BTCUSDT"].series.current
    assert current is not None
    assert current.open_time == NOW - NOW % 60_000
    desk.clock.advance(60_000)
    closed = desk.exchange.advance("BTCUSDT", True)
    assert [(i, c.close) for i, c in closed] == [("1m", 100)]


def test_other_intervals_and_forms(tmp_path: Path) -> None:
    plain = write_klines(tmp_path / "BTCUSDT-5m-x.csv", ["100", "101"], 1_600_000_200_000, 300_000)
    text = plain.read_text()
    (tmp_path / "ETHUSDT-5m-x.csv.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "DOGEUSDT-5m-x.zip", "w") as archive:
        archive.writestr("DOGEUSDT-5m-x.csv", text.replace("1600000", "1600000000000"[:-6]))
    tapes = read_tapes((plain, tmp_path / "ETHUSDT-5m-x.csv.gz", tmp_path / "DOGEUSDT-5m-x.zip"))
    assert [(t.symbol, t.interval, [t.row(n).close for n in range(len(t))]) for t in tapes] == [
        ("BTCUSDT", "5m", [100, 101]),
        ("ETHUSDT", "5m", [100, 101]),
        ("DOGEUSDT", "5m", [100, 101]),
    ]
    desk = Desk(files=(plain,), step=True)
    desk.exchange.next_step()
    assert desk.get("/api/v3/klines", symbol="BTCUSDT", interval="1m").json == []
    rows = desk.get("/api/v3/klines", symbol="BTCUSDT", interval="5m", limit=1000).json
    assert len(rows) == 1000
    assert D(rows[-1][4]) == 100


def test_rows_in_any_order_and_twice(tmp_path: Path) -> None:
    path = write_klines(tmp_path / "BTCUSDT-1m-x.csv", ["1", "2", "3"])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[2], lines[0], lines[1], lines[0].replace(",1,1,1,1,", ",9,9,9,9,")]) + "\n")
    tape = read_tapes((path,))[0]
    assert [tape.row(n).close for n in range(len(tape))] == [1, 2, 3]


def test_the_interval_of_the_rows_where_the_name_has_none(tmp_path: Path) -> None:
    path = write_klines(tmp_path / "BTCUSDT.csv", ["1", "2", "3"], length=900_000)
    assert read_tapes((path,))[0].interval == "15m"


def test_microseconds(tmp_path: Path) -> None:
    path = write_klines(tmp_path / "BTCUSDT-1m.csv", ["1", "2"])
    path.write_text(
        path.read_text().replace("1600000020000,", "1600000020000000,").replace("1600000080000,", "1600000080000000,")
    )
    tape = read_tapes((path,))[0]
    assert [tape.row(n).open_time for n in (0, 1)] == [1_600_000_020_000, 1_600_000_080_000]
    assert tape.row(1).close_time == 1_600_000_139_999


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no rows"),
        ("open_time,open\n", "no rows"),
        ("1600000020000,1,1,1,1\n", ":1: not a kline row (5 columns)"),
        ("1600000020000,1,1,1,1,1\nx,1,1,1,1,1\n", ":2: not a kline row"),
        ("1600000020000,1,1,1,NaN,1\n", ":1: not a kline row"),
        ("1600000020000,1,1,1,0,1\n", ":1: not a kline row"),
        ("1600000020000,1,1,1,1.123456789,1\n", ":1: not a kline row"),
        ("1600000020000,5,1,1,1,1\n", "high or low lies inside"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "BTCUSDT-1m.csv"
    path.write_text(text)
    with pytest.raises(SimulatorError) as refused:
        read_tapes((path,))
    assert str(path) in str(refused.value)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_two_intervals(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match="cannot be read"):
        read_tapes((tmp_path / "BTCUSDT-1m.csv",))
    one = write_klines(tmp_path / "BTCUSDT-1m-a.csv", ["1"])
    five = write_klines(tmp_path / "BTCUSDT-5m-a.csv", ["1"], 1_600_000_200_000, 300_000)
    with pytest.raises(SimulatorError, match="one series has one"):
        read_tapes((one, five))


def test_the_commission_of_a_buy_is_rounded_up(tmp_path: Path) -> None:
    desk = Desk(files=(write_klines(tmp_path / "FOOUSDT-1m-x.csv", ["1000000"]),), step=True)
    desk.exchange.next_step()
    bought = desk.order(symbol="FOOUSDT", quantity="0.0012341").json
    assert bought["fills"][0]["commission"] == "0.00000124"  # of 0.0000012341
