"""Kline files: rows as they stand in the file, or one line that names the file and the row."""

import re
from decimal import Decimal

import pytest

from bot.research.files import FileError, read_series
from tests.fuzz.garbage import ODD_TEXTS, cases

pytestmark = pytest.mark.timeout(7200)
START = 1_621_425_600_000
PLACE = re.compile(r".*BTCUSDT-1m-x\.csv(:\d+)?: .+")
SEPARATORS = (",", ",", ",", ";", "\t", ", ", ",,")
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


def a_file(random):
    """Some rows, of which few are wrong: a field, a separator, a line, an order of lines."""
    unit = random.choice((1, 1, 1, 1000))
    rows = []
    for n in range(random.randrange(1, 6)):
        open_time = (START + 60_000 * n) * unit
        close = f"{random.randrange(1, 10**6)}.{random.randrange(10**8):08}"
        rows.append(
            [
                str(open_time),
                close,
                close,
                close,
                close,
                "1.5",
                str(open_time + 60_000 * unit - 1),
                "100",
                "7",
                "1",
                "50",
                "0",
            ]
        )
    for _ in range(random.choice((0, 1, 1, 2))):
        row = random.choice(rows)
        step = random.random()
        if step < 0.6:
            row[random.randrange(len(row))] = random.choice(ODD_TEXTS)
        elif step < 0.7:
            del row[random.randrange(len(row))]
        elif step < 0.8:
            row.insert(random.randrange(len(row)), random.choice(ODD_TEXTS))
        elif step < 0.9:
            random.shuffle(rows)
        else:
            rows.append(list(random.choice(rows)))
    lines = [random.choice(SEPARATORS if random.random() < 0.05 else (",",)).join(row) for row in rows]
    if random.random() < 0.3:
        lines.insert(0 if random.random() < 0.9 else len(lines), HEADER)
    data = random.choice(("\n", "\n", "\r\n", "\r")).join(lines).encode("utf-8", "surrogatepass")
    if random.random() < 0.15:
        at = random.randrange(len(data) + 1)
        data = data[:at] + random.randbytes(random.randrange(4)) + data[at + random.randrange(4) :]
    return data + random.choice((b"", b"\n", b"\n\n", b"\x1a"))


def test_no_row_does_harm(tmp_path):
    file = tmp_path / "BTCUSDT-1m-x.csv"
    outcomes = set()
    for number, random in cases(0.06, "csv"):
        data = a_file(random)
        file.write_bytes(data)
        try:
            outcomes.add(judge_file(file, data))
        except Exception as error:
            raise AssertionError(f"case {number}: {data[:2000]!r}") from error
    assert outcomes == {True, False}


def judge_file(file, data):
    try:
        (series,) = read_series([file])
    except FileError as error:
        line = str(error)
        assert len(line.splitlines()) == 1, line
        assert PLACE.fullmatch(line), line
        assert len(line) < 600, line
        return False
    text = data.decode("utf-8", "replace")
    times = [(row.close_time, row.open_time) for row in series.rows]
    assert times == sorted(times)
    assert len({row.open_time for row in series.rows}) == len(times)
    for row in series.rows:
        kline = row.kline(series.symbol, series.interval)
        assert str(kline.open_time) in text
        assert kline.open_time <= kline.close_time
        for price in (kline.open, kline.high, kline.low, kline.close):
            assert price.is_finite()
            assert price > 0
        assert kline.volume >= 0
        assert isinstance(kline.close, Decimal)
    return True
