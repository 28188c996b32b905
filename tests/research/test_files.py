"""Kline files: every form read alike and exactly, everything else refused with one line that says where."""

import gzip
import io
import os
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.research.files import COLUMNS, FileError, Series, interval_ms, merged, read_series

HEADER = ",".join(COLUMNS)
START = 1_600_000_020_000
TMP = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def a_row(minute: int = 0, close: str = "100.5", **fields: str) -> list[str]:
    row = dict.fromkeys(COLUMNS, "")
    row |= {"open_time": str(START + 60_000 * minute), "open": "100", "high": "101.0", "low": "99", "volume": "7"}
    return list((row | {"close": close} | fields).values())


def csv_of(rows: list[list[str]], header: bool = True) -> str:
    return "".join(f"{line}\n" for line in [*[HEADER] * header, *(",".join(row) for row in rows)])


def zipped(**members: str) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_csv", ".csv"), text)
    return memory.getvalue()


def parquet_of(frame: pl.DataFrame) -> bytes:
    memory = io.BytesIO()
    frame.write_parquet(memory)
    return memory.getvalue()


def string_frame(rows: list[list[str]]) -> pl.DataFrame:
    columns = zip(*rows, strict=True)
    return pl.DataFrame(
        {
            name: pl.Series([value or None for value in values], dtype=pl.String)
            for name, values in zip(COLUMNS, columns, strict=True)
        }
    )


def quoted(rows: list[list[str]]) -> str:
    return "".join(",".join(f'"{value}"' for value in row) + "\n" for row in rows)


FORMS: dict[str, tuple[str, Callable[[list[list[str]]], bytes]]] = {
    "header": (".csv", lambda rows: csv_of(rows).encode()),
    "bare": (".CSV", lambda rows: csv_of(rows, header=False).encode()),
    "no last newline": (".csv", lambda rows: csv_of(rows, header=False).rstrip("\n").encode()),
    "crlf, bom, blanks": (".csv", lambda rows: ("\n" + csv_of(rows)).replace("\n", "\r\n\r\n").encode("utf-8-sig")),
    "quoted": (".csv", lambda rows: quoted(rows).encode()),
    "gzip": (".csv.gz", lambda rows: gzip.compress(csv_of(rows).encode())),
    "gzip in two parts": (".Csv.Gz", lambda rows: gzip.compress(HEADER.encode() + b"\n") + gzip.compress(
        csv_of(rows, header=False).encode())),
    "gzip called csv": (".csv", lambda rows: gzip.compress(csv_of(rows).encode())),
    "zip": (".zip", lambda rows: zipped(x_csv=csv_of(rows, header=False))),
    "parquet": (".parquet", lambda rows: parquet_of(string_frame(rows))),
    "parquet, other names": (
        ".parquet",
        lambda rows: parquet_of(string_frame(rows).rename({name: f"c{i}" for i, name in enumerate(COLUMNS)})),
    ),
    "parquet, shuffled": (".parquet", lambda rows: parquet_of(string_frame(rows).select(sorted(COLUMNS)))),
}  # fmt: skip


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_one(path: Path, interval: str | None = None) -> Series:
    (series,) = read_series([path], interval)
    return series


def refusal(*paths: Path, interval: str | None = None) -> str:
    with pytest.raises(FileError) as caught:
        read_series(paths, interval)
    text = str(caught.value)
    assert text.isprintable(), "one line"
    assert "; " in text, "and the fix"
    return text


numbers = st.one_of(
    st.decimals(min_value=0, max_value=10**9, places=8).map(lambda x: f"{x:f}"),
    st.from_regex(r"[0-9]{1,12}(\.[0-9]{1,18})?([eE][+-]?[0-9])?", fullmatch=True),
)
prices = numbers.filter(lambda text: Decimal(text) > 0)
unknown = st.one_of(st.just(""), numbers)


@st.composite
def klines(draw: st.DrawFn, minutes: int = 30) -> list[str]:
    began = START + 60_000 * draw(st.integers(0, minutes))
    ended = draw(st.sampled_from(["", str(began + 59_999), str(began + 200_000)]))
    micros = draw(st.booleans())
    times = [f"{began}{'123' * micros}", f"{ended}{'999' * micros}" if ended else ""]
    return [
        times[0],
        *(draw(prices) for _ in range(4)),
        draw(numbers),
        times[1],
        *(draw(unknown) for _ in range(5)),
    ]


def milliseconds(text: str) -> int:
    return int(text) if len(text) < 15 else int(text) // 1000


def naive(rows: list[list[str]], step: int) -> list[tuple[Any, ...]]:
    """The rows as the contract has them, by the plainest means."""
    first: dict[int, tuple[Any, ...]] = {}
    for row in rows:
        began = milliseconds(row[0])
        ended = milliseconds(row[6]) if row[6] else began + step - 1
        quote = Decimal(row[7]) if row[7] else None
        if began not in first:
            first[began] = (ended, began, *(str(Decimal(x)) for x in row[1:6]), quote)
    return sorted(first.values(), key=lambda row: row[:2])


def values(series: Series) -> list[tuple[Any, ...]]:
    return [
        (r.close_time, r.open_time, *(str(x) for x in (r.open, r.high, r.low, r.close, r.volume)), r.quote_volume)
        for r in series.rows
    ]


@pytest.mark.parametrize("form", FORMS)
@TMP
@given(rows=st.lists(klines(), min_size=1, max_size=12))
def test_every_form_gives_the_same_rows(tmp_path: Path, form: str, rows: list[list[str]]) -> None:
    suffix, content = FORMS[form]
    path = write(tmp_path / f"BTCUSDT-1m-x{suffix}", content(rows))
    series = read_one(path)
    expected = naive(rows, 60_000)
    assert values(series) == expected
    assert series.dropped == len(rows) - len(expected)
    assert (series.symbol, series.interval, series.interval_ms) == ("BTCUSDT", "1m", 60_000)
    for row in series.rows:
        kline = row.kline("BTCUSDT", "1m")
        assert (kline.symbol, kline.interval, kline.is_closed) == ("BTCUSDT", "1m", True)
        assert (kline.open_time, kline.close_time, kline.event_time) == (row.open_time, row.close_time, row.close_time)
        assert (kline.open, kline.high, kline.low, kline.close) == (row.open, row.high, row.low, row.close)
        assert (kline.volume, kline.quote_volume) == (row.volume, row.quote_volume)


@TMP
@given(parts=st.lists(st.lists(klines(), min_size=1, max_size=8), min_size=1, max_size=4))
def test_files_of_a_symbol_are_one_series_and_the_first_row_counts(
    tmp_path: Path, parts: list[list[list[str]]]
) -> None:
    paths = [write(tmp_path / f"ETHUSDT-1m-{i}.csv", csv_of(rows)) for i, rows in enumerate(parts)]
    (series,) = read_series(paths)
    rows = [row for part in parts for row in part]
    assert values(series) == naive(rows, 60_000)
    assert series.dropped == len(rows) - len(series.rows)


@TMP
@given(
    given_rows=st.dictionaries(
        st.sampled_from(["BTCUSDT", "ETHUSDT", "AUSDT"]), st.lists(klines(6), min_size=1, max_size=8), min_size=1
    )
)
def test_series_merge_as_a_plain_sort_would(tmp_path: Path, given_rows: dict[str, list[list[str]]]) -> None:
    paths = [write(tmp_path / f"{symbol}-1m.csv", csv_of(rows)) for symbol, rows in given_rows.items()]
    series = read_series(paths)
    assert [one.symbol for one in series] == list(given_rows)
    plain = sorted((row.close_time, index, row.open_time) for index, one in enumerate(series) for row in one.rows)
    found = [(row.close_time, series.index(one), row.open_time) for one, row in merged(series)]
    assert found == plain


def test_symbols_keep_the_order_in_which_they_were_first_given(tmp_path: Path) -> None:
    names = ["XRPUSDT-1m-b.csv", "ADAUSDT-1m.csv", "XRPUSDT-1m-a.csv"]
    paths = [write(tmp_path / name, csv_of([a_row(i)])) for i, name in enumerate(names)]
    assert [one.symbol for one in read_series(paths)] == ["XRPUSDT", "ADAUSDT"]
    assert read_series([]) == []


@TMP
@given(
    floats=st.lists(st.floats(min_value=1e-20, max_value=1e20), min_size=1, max_size=20),
    kind=st.sampled_from([pl.Float64, pl.Float32]),
)
def test_a_float_column_is_taken_by_its_shortest_text(tmp_path: Path, floats: list[float], kind: Any) -> None:
    column = pl.Series(floats, dtype=kind)
    data = {"open_time": [START + 60_000 * i for i in range(len(floats))]}
    frame = pl.DataFrame(data | dict.fromkeys(("open", "high", "low", "close", "volume"), column))
    series = read_one(write(tmp_path / "BTCUSDT-1m.parquet", parquet_of(frame)))
    for value, row in zip(column.to_list(), series.rows, strict=True):
        if kind is pl.Float64:
            assert row.open == row.close == row.volume == Decimal(repr(value))
        else:
            assert struct.pack("f", float(row.close)) == struct.pack("f", value)
            assert len(row.close.as_tuple().digits) <= 17
        assert row.quote_volume is None


def test_parquet_decimals_and_datetimes_are_exact(tmp_path: Path) -> None:
    price = pl.Series([Decimal("0.1234567890123456789"), Decimal("123456789.5")], dtype=pl.Decimal(38, 19))
    times = pl.Series([datetime(2025, 1, 1, 0, 0, tzinfo=UTC), datetime(2025, 1, 1, 0, 1, 0, 999, tzinfo=UTC)])
    frame = pl.DataFrame({"open_time": times} | dict.fromkeys(("open", "high", "low", "close", "volume"), price))
    series = read_one(write(tmp_path / "BTCUSDT-1m.parquet", parquet_of(frame)))
    assert [row.high for row in series.rows] == price.to_list()
    assert [row.open_time for row in series.rows] == [1735689600000, 1735689660000]


@pytest.mark.parametrize("count", [40_000, 40_001])
def test_long_files_are_read_in_parts_with_the_right_line(tmp_path: Path, count: int) -> None:
    rows = [a_row(i, f"{i + 1}.25") for i in range(count)]
    path = write(tmp_path / "BTCUSDT-1m.csv", csv_of(rows))
    seen: list[tuple[int, int]] = []
    (series,) = read_series([path], progress=lambda done, total: seen.append((done, total)))
    assert [str(row.close) for row in series.rows] == [row[4] for row in rows]
    size = path.stat().st_size
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == (size, size)
    rows[count - 2][4] = "NaN"
    rows.insert(7, [""])
    text = csv_of(rows)
    write(path, text)
    line = text[: text.index("NaN")].count("\n") + 1
    assert refusal(path).startswith(f"{path}:{line}: close 'NaN' ")


@pytest.mark.parametrize(
    "column", ["open", "high", "low", "close", "volume", "quote_volume", "count", "taker_buy_volume", "ignore"]
)
@pytest.mark.parametrize(
    "bad",
    [
        *("NaN", "nan", "Infinity", "-inf", "sNaN1", "1_000", " 1", "1 ", "+1", "-1", "0x1", "1e400", "1e31", "1e-31"),
        *("1.", ".5", "1٫0", "١", "9" * 41, "0." + "1" * 40, "abc", "1\x00", "--", "1e"),
    ],
)
def test_a_bad_number_is_named_with_its_line(tmp_path: Path, column: str, bad: str) -> None:
    rows = [a_row(0), a_row(1, **{column: bad}), a_row(2)]
    for header in (True, False):
        path = write(tmp_path / "BTCUSDT-1m.csv", csv_of(rows, header))
        assert refusal(path).startswith(f"{path}:{2 + header}: {column} ")
    packed = write(tmp_path / "BTCUSDT-1m.csv.gz", gzip.compress(csv_of(rows).encode()))
    assert refusal(packed).startswith(f"{packed}:3: {column} ")
    table = write(tmp_path / "BTCUSDT-1m.parquet", parquet_of(string_frame(rows)))
    assert refusal(table).startswith(f"{table}:2: {column} ")


@pytest.mark.parametrize("column", ["open", "high", "low", "close"])
@pytest.mark.parametrize("bad", ["0", "0.000", "0e5", ""])
def test_a_price_must_be_above_zero(tmp_path: Path, column: str, bad: str) -> None:
    path = write(tmp_path / "BTCUSDT-1m.csv", csv_of([a_row(0), a_row(1, **{column: bad})]))
    assert refusal(path).startswith(f"{path}:3: {column} {bad!r} ")


def test_a_volume_may_be_zero_but_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1m.csv"
    assert read_one(write(path, csv_of([a_row(volume="0.0")]))).rows[0].volume == 0
    assert refusal(write(path, csv_of([a_row(volume="")]))).startswith(f"{path}:2: volume '' ")


@pytest.mark.parametrize("good", ["1e-05", "1E+3", "0" * 20 + "1.5", "9" * 40, "0." + "0" * 37 + "1", "1e30", "1e-30"])
def test_unusual_but_plain_decimals_are_kept_exactly(tmp_path: Path, good: str) -> None:
    row = read_one(write(tmp_path / "BTCUSDT-1m.csv", csv_of([a_row(0, good, open=good)]))).rows[0]
    assert row.close == row.open == Decimal(good)
    assert row.close.as_tuple() == Decimal(good).as_tuple()


@pytest.mark.parametrize("column", ["open_time", "close_time"])
@pytest.mark.parametrize("bad", ["0", "-1", "+5", "1e12", "1600000000000.0", " 1600000000000", "1_6", "NaN", "9" * 18])
def test_a_bad_time_is_named_with_its_line(tmp_path: Path, column: str, bad: str) -> None:
    for rows in ([a_row(0), a_row(1, **{column: bad})], [a_row(1, **{column: bad}), a_row(0)]):
        line = 1 + (rows[0] == a_row(0))
        path = write(tmp_path / "BTCUSDT-1m.csv", csv_of(rows, header=False))
        assert refusal(path).startswith(f"{path}:{line}: {column} {bad!r} ")


def test_a_kline_does_not_end_before_it_begins(tmp_path: Path) -> None:
    path = write(tmp_path / "BTCUSDT-1m.csv", csv_of([a_row(0), a_row(1, close_time=str(START + 59_999))]))
    assert refusal(path).startswith(f"{path}:3: close_time {START + 59_999} ")


def test_microseconds_are_floored(tmp_path: Path) -> None:
    row = a_row(open_time="1735689600000000", close_time="1735689659999999")
    series = read_one(write(tmp_path / "BTCUSDT-1m.csv", csv_of([row])))
    assert [(r.open_time, r.close_time) for r in series.rows] == [(1735689600000, 1735689659999)]
    limit = read_one(write(tmp_path / "BTCUSDT-1m.csv", csv_of([a_row(open_time="99999999999999")])))
    assert limit.rows[0].open_time == 99999999999999


PLAIN = csv_of([a_row(i) for i in range(3)])
LONG = csv_of([a_row(i, f"{(i * 7919) % 9973 + 1}.5") for i in range(3000)])


def a_wrong_checksum() -> bytes:
    data = bytearray(zipped(x_csv=PLAIN))
    at = data.rindex(b"PK\x01\x02") + 16
    data[at] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("B-1m.csv", "", 1),
        ("B-1m.csv", "\n\n", 1),
        ("B-1m.csv", HEADER, 1),
        ("B-1m.csv.gz", b"", 1),
        ("B-1m.csv.gz", gzip.compress(b"", mtime=0), 1),
        ("B-1m.parquet", b"", 1),
        ("B-1m.parquet", parquet_of(string_frame([a_row()]).clear()), 1),
        ("B-1m.csv", PLAIN[:-5] + "\n", 4),
        ("B-1m.csv", PLAIN + "1600", 5),
        ("B-1m.csv", PLAIN + HEADER + "\n", 5),
        ("B-1m.csv", PLAIN.replace("\n", ",\n"), 1),
        ("B-1m.csv", "," + HEADER + "\n", 1),
        ("B-1m.csv", HEADER.replace("high,low", "low,high") + "\n" + PLAIN, 1),
        ("B-1m.csv", PLAIN + '"1,2\n', 5),
        ("B-1m.csv", PLAIN + "x" * 300_000, 5),
        ("B-1m.csv", PLAIN + '"' + "x" * 300_000, 5),
        ("B-1m.csv", "<!DOCTYPE html>\n<html>", 1),
        ("B-1m.csv", PLAIN.replace("\n", "\r"), 1),
        ("B-1m.csv", PLAIN.encode() + b"\xff\xfe", 5),
        ("B-1m.csv", PLAIN.encode("utf-16"), 1),
        ("B-1m.csv", bytes(range(128, 256)), 1),
        ("B-1m.csv.gz", bytes(range(256)) * 9, 2),
        ("B-1m.csv.gz", b"\x1f\x8b" + bytes(range(256)) * 9, 1),
        ("B-1m.csv.gz", gzip.compress(LONG.encode(), mtime=0)[:20], 1),
        ("B-1m.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)[:-3], 5),
        ("B-1m.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)[:-8] + b"\0" * 8, 5),
        ("B-1m.csv.gz", gzip.compress(PLAIN.encode(), mtime=0) + b"tail", 5),
        ("B-1m.zip", a_wrong_checksum(), None),
        ("B-1m.zip", zipped(x_csv=PLAIN)[:-9], 1),
        ("B-1m.zip", zipped(), 1),
        ("B-1m.zip", zipped(x_csv=PLAIN, y_csv=PLAIN), 1),
        ("B-1m.zip", zipped(**{"readme.txt": PLAIN}), 1),
        ("B-1m.zip", zipped(x_csv=PLAIN + "1,2\n"), 5),
        ("B-1m.parquet", b"PAR1" + b"\0" * 40, 1),
        ("B-1m.parquet", parquet_of(string_frame([a_row()]))[:-9], 1),
        ("B-1m.parquet", parquet_of(pl.DataFrame({"open_time": [1]})), 1),
        ("B-1m.parquet", parquet_of(string_frame([a_row()]).drop("low")), 1),
        ("B-1m.parquet", parquet_of(string_frame([a_row()]).rename({"open": "x"}).select("x", pl.exclude("x"))), 1),
        ("B-1m.parquet", parquet_of(string_frame([a_row(), a_row(open_time="open_time")])), 2),
        ("B-1m.parquet", parquet_of(string_frame([a_row(open_time="open_time"), a_row()])), 1),
        ("B-1m.parquet", parquet_of(string_frame([a_row(), a_row(open="1\n2")])), 2),
        ("B-1m.parquet", parquet_of(string_frame([a_row(), a_row(open="1,2")])), 2),
        ("B-1m.parquet", parquet_of(pl.DataFrame({name: [[1]] for name in COLUMNS})), 1),
        ("B-1m.parquet", parquet_of(pl.DataFrame({name: [True] for name in COLUMNS})), 1),
        ("B-1m.parquet", parquet_of(pl.DataFrame({name: [float("nan")] for name in COLUMNS})), 1),
    ],
)  # fmt: skip
def test_what_is_no_kline_file_is_refused_with_its_line(
    tmp_path: Path, name: str, content: bytes | str, line: int | None
) -> None:
    path = write(tmp_path / name, content)
    found = re.match(rf"{re.escape(str(path))}:(\d+): ", refusal(path))
    assert found is not None
    assert line is None or int(found[1]) == line


def test_a_cut_gzip_names_the_line_up_to_which_it_is_whole(tmp_path: Path) -> None:
    data = gzip.compress(LONG.encode())
    path = write(tmp_path / "BTCUSDT-1m.csv.gz", data[: len(data) // 2])
    line = int(refusal(path).removeprefix(f"{path}:").partition(":")[0])
    assert 1000 < line < 2500


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped(x_csv=PLAIN))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path = write(tmp_path / "BTCUSDT-1m.zip", bytes(data))
    assert "encrypted" in refusal(path)


@settings(TMP, max_examples=300)
@given(
    column=st.sampled_from(COLUMNS),
    text=st.one_of(st.text("0123456789.eE+- _", max_size=8), numbers, st.from_regex(r"[0-9]{1,22}", fullmatch=True)),
)
def test_the_quick_and_the_thorough_parser_agree(tmp_path: Path, column: str, text: str) -> None:
    row = a_row()
    row[COLUMNS.index(column)] = text
    outcomes = []
    for content in (",".join(row), ",".join(f'"{value}"' for value in row)):
        path = write(tmp_path / "BTCUSDT-1m.csv", content)
        try:
            outcomes.append(str(read_one(path).rows))
        except FileError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@settings(TMP, max_examples=300)
@given(
    suffix=st.sampled_from([".csv", ".csv.gz", ".zip", ".parquet"]),
    garbage=st.binary(max_size=60),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3),
    base=st.sampled_from(
        [b"", PLAIN.encode(), gzip.compress(PLAIN.encode()), zipped(x_csv=PLAIN), parquet_of(string_frame([a_row()]))]
    ),
)
def test_damaged_files_are_read_or_refused_and_nothing_else(
    tmp_path: Path, suffix: str, garbage: bytes, edits: list[tuple[int, int]], base: bytes
) -> None:
    data = bytearray(base + garbage)
    for at, value in edits[: len(data)]:
        data[at % len(data)] = value
    path = write(tmp_path / f"BTCUSDT-1m{suffix}", bytes(data))
    try:
        said = ""
        assert read_one(path).rows
    except FileError as error:
        said = str(error)
    assert not said or (said.startswith(f"{path}:") and said.isprintable())


@pytest.mark.parametrize(
    "name",
    [
        *("-1m.csv", ".csv", "btcusdt-1m.csv", "BTC_USDT-1m.csv", "BTCUSDT(1).csv", "BTC USDT.csv", "Straße-1m.csv"),
        *("BTCUSDT-1m.txt", "BTCUSDT-1m.gz", "BTCUSDT", "BTCUSDT-1m.json", "BTCUSDT-1mo-2021.csv", "BTCUSDT-1M.zip"),
    ],
)
def test_a_wrong_name_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, PLAIN)
    assert refusal(path).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("BTCUSDT.csv", "BTCUSDT"), ("1000SATSUSDT-1m.csv", "1000SATSUSDT"), ("币安人生USDT-1m-x.csv", "币安人生USDT")],
)
def test_the_symbol_is_the_name_up_to_the_first_dash(tmp_path: Path, name: str, symbol: str) -> None:
    assert read_one(write(tmp_path / name, PLAIN)).symbol == symbol


def test_absent_files_directories_and_odd_paths_are_refused_in_one_line(tmp_path: Path) -> None:
    # Whatever its name: that it is not there, or no file, is the nearer fault.
    for absent in (tmp_path / "BTCUSDT-1m.csv", tmp_path / "klines.csv", tmp_path / "klines"):
        assert refusal(absent).startswith(f"{absent}: cannot be read (No such file or directory)")
    assert refusal(tmp_path).startswith(f"{tmp_path}: is a directory")
    directory = tmp_path / "ETHUSDT-1m.csv"
    directory.mkdir()
    assert refusal(directory).startswith(f"{directory}: is a directory")
    odd = tmp_path / "new\nline"
    odd.mkdir()
    assert "\\n" in refusal(write(odd / "BTCUSDT-1m.csv", "1"))
    # All names are looked at before anything is read.
    assert "No such file" in refusal(write(tmp_path / "AUSDT-1m.csv", "garbage"), absent)


@contextmanager
def not_root() -> Iterator[None]:
    """Let this process be nobody for a moment if it is root's, who may read everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_an_unreadable_file_is_refused() -> None:
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # pytest's own are the user's alone
        path = write(Path(directory) / "BTCUSDT-1m.csv", PLAIN)
        assert read_one(path).rows
        path.chmod(0)
        with not_root():
            said = refusal(path)
    assert said.startswith(f"{path}: cannot be read (Permission denied)")


@pytest.mark.parametrize(
    ("name", "argument", "minutes", "expected"),
    [
        ("BTCUSDT-5m-2021.csv", "1m", [0, 1], ("5m", 300_000)),
        ("BTCUSDT-5m.csv", None, [0], ("5m", 300_000)),
        ("BTCUSDT-mydata.csv", "3m", [0, 1], ("3m", 180_000)),
        ("BTCUSDT.csv", "1w", [0, 1], ("1w", 604_800_000)),
        ("BTCUSDT-mydata.csv", None, [30, 0, 0, 15, 90], ("15m", 900_000)),
        ("BTCUSDT.csv", None, [0, 10, 30], ("10m", 600_000)),
        ("BTCUSDT.csv", None, [0, 60 * 24 * 7], ("1w", 604_800_000)),
    ],
)
def test_the_interval_comes_from_name_argument_or_rows(
    tmp_path: Path, name: str, argument: str | None, minutes: list[int], expected: tuple[str, int]
) -> None:
    series = read_one(write(tmp_path / name, csv_of([a_row(minute) for minute in minutes])), argument)
    assert (series.interval, series.interval_ms) == expected
    assert all(row.close_time == row.open_time + expected[1] - 1 for row in series.rows)


def test_a_single_row_tells_the_interval_only_by_its_close_time(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT.csv"
    series = read_one(write(path, csv_of([a_row(close_time=str(START + 299_999))] * 2)))
    assert (series.interval, len(series.rows), series.dropped) == ("5m", 1, 1)
    odd = read_one(write(path, csv_of([a_row(close_time=str(START + 1_499))])))
    assert (odd.interval, odd.interval_ms) == ("1500ms", 1500)
    text = refusal(write(path, csv_of([a_row()])))
    assert text.startswith(f"{path}:1: ")
    assert "--interval" in text


def test_the_smallest_step_is_that_of_all_files_of_the_symbol(tmp_path: Path) -> None:
    evens = write(tmp_path / "BTCUSDT-even.csv", csv_of([a_row(0), a_row(2)]))
    odds = write(tmp_path / "BTCUSDT-odd.csv", csv_of([a_row(1), a_row(3)]))
    (series,) = read_series([evens, odds])
    assert (series.interval, len(series.rows)) == ("1m", 4)


def test_the_name_that_would_tell_the_interval_keeps_the_ending(tmp_path: Path) -> None:
    text = csv_of([a_row()])
    for ending, data in (
        (".csv", text.encode()),
        (".csv.gz", gzip.compress(text.encode())),
        (".zip", zipped(a_csv=text)),
    ):
        path = tmp_path / f"ETHUSDT{ending}"
        path.write_bytes(data)
        assert refusal(path).endswith(f"or name the file ETHUSDT-1m-DATES{ending}")


@pytest.mark.parametrize("column", ["open", "close", "volume"])
def test_what_is_below_zero_is_called_so(tmp_path: Path, column: str) -> None:
    path = tmp_path / "BTCUSDT-1m-x.csv"
    path.write_text(csv_of([a_row(**{column: "-5"})], header=False))
    bound = "is below 0; it must be 0 or more" if column == "volume" else "is no price; it must be above 0"
    assert f":1: {column} '-5' {bound}" in refusal(path)


def test_two_intervals_of_a_symbol_are_refused_naming_both_files(tmp_path: Path) -> None:
    one = write(tmp_path / "BTCUSDT-1m-a.csv", PLAIN)
    five = write(tmp_path / "BTCUSDT-5m-b.csv", csv_of([a_row(0), a_row(5)]))
    bare = write(tmp_path / "BTCUSDT-c.csv", csv_of([a_row(7), a_row(8)]))
    for paths, interval in (((one, five), None), ((five, bare), None), ((bare, one), "5m")):
        text = refusal(*paths, interval=interval)
        assert all(str(path) in text for path in paths)
    (series,) = read_series([one, bare])
    assert (series.interval, len(series.rows)) == ("1m", 5)
    other = write(tmp_path / "ETHUSDT-5m.csv", PLAIN)
    assert [x.interval for x in read_series([one, other])] == ["1m", "5m"]


def test_intervals_are_binances() -> None:
    assert [interval_ms(x) for x in ("1s", "1m", "12h", "3d", "1w")] == [
        1_000,
        60_000,
        43_200_000,
        259_200_000,
        604_800_000,
    ]
    for bad in ("1M", "1mo", "", "m", "7m", "1 m", "60", "01m", "\n"):
        with pytest.raises(ValueError, match=r"use one of 1s, 1m, .*1w") as caught:
            interval_ms(bad)
        assert str(caught.value).isprintable()
    with pytest.raises(ValueError, match="'7m' is not supported"):
        read_series([], "7m")


ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BULKHEAD_DATA") or ROOT / "../shared/data")
REAL = sorted(DATA.glob("klines*/*.csv.gz"))


@pytest.mark.real_data
@pytest.mark.skipif(not REAL, reason=f"no kline files under {DATA} (BULKHEAD_DATA names another directory)")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_files_are_as_their_readme_says(path: Path) -> None:
    readme = (DATA / "README.md").read_text() if (DATA / "README.md").exists() else ""
    name = path.relative_to(DATA).as_posix().removesuffix(".csv.gz")
    cells = next((line.split("|")[2:9] for line in readme.splitlines() if line.startswith(f"| {name} |")), None)
    if cells is None:
        pytest.skip(f"{name} is not described in {DATA / 'README.md'}")
    count, first, last, _, extremes, moves, _ = (cell.strip() for cell in cells)
    series = read_one(path)
    closes = [row.close for row in series.rows]
    pairs = list(pairwise(closes))
    down = sum(c <= p * Decimal("0.99") for p, c in pairs)
    up = sum(c >= p * Decimal("1.01") for p, c in pairs)
    stamps = [f"{datetime.fromtimestamp(series.rows[i].open_time / 1000, UTC):%Y-%m-%dT%H:%M}" for i in (0, -1)]
    assert (len(series.rows), series.dropped) == (int(count), 0)
    assert stamps == [first, last]
    assert [min(row.low for row in series.rows), max(row.high for row in series.rows)] == [
        Decimal(part) for part in extremes.split(" / ")
    ]
    assert f"{down} / {up}" == moves
    assert all(row.close_time == row.open_time + series.interval_ms - 1 for row in series.rows)
