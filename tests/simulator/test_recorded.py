"""Recorded exchangeInfo files: taken as they are, shown, enforced; a broken one is refused with one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from bot.simulator import SimulatorError
from tests.simulator.support import Desk

DATA = Path(__file__).parents[1] / "data"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT", "LTCUSDT")


@pytest.mark.parametrize("profile", ["com", "us"])
def test_what_is_shown_is_what_was_recorded(profile: str) -> None:
    path = DATA / f"exchange-info-{profile}.json"
    desk = Desk(profile, symbols=SYMBOLS, exchange_info=path)
    shown = desk.get("/api/v3/exchangeInfo").json["symbols"]
    recorded = json.loads(path.read_text())["symbols"]
    assert [info["filters"] for info in shown] == [info["filters"] for info in recorded]
    assert shown[0]["orderTypes"] == ["LIMIT", "LIMIT_MAKER", "MARKET"]
    assert shown[0]["ocoAllowed"] is False
    for info in shown:
        answer = desk.order(symbol=info["symbol"], quoteOrderQty="100")
        assert answer.json["status"] in ("FILLED", "EXPIRED")


def test_its_filters_status_and_rights_hold(tmp_path: Path) -> None:
    content = json.loads((DATA / "exchange-info-com.json").read_text())
    content["exchangeFilters"] = [{"filterType": "EXCHANGE_MAX_NUM_ORDERS", "maxNumOrders": 1}]
    content["symbols"][1]["status"] = "HALT"
    content["symbols"][2]["permissionSets"] = [["LEVERAGED"]]
    content["symbols"][3]["filters"][1]["stepSize"] = "0.50000000"
    path = tmp_path / "info.json"
    path.write_text(json.dumps(content))
    desk = Desk(symbols=SYMBOLS, exchange_info=path)
    assert desk.get("/api/v3/exchangeInfo").json["exchangeFilters"] == content["exchangeFilters"]
    assert desk.order(symbol="ETHUSDT", quantity="0.1").msg == "Market is closed."
    assert desk.order(symbol="DOGEUSDT", quantity="100").msg == "This symbol is not permitted for this account."
    assert desk.order(symbol="LTCUSDT", quantity="0.7").msg == "Filter failure: LOT_SIZE"
    assert desk.limit(symbol="LTCUSDT", quantity="0.5", price="50").status == 200
    assert desk.limit(quantity="0.001", price="50000").msg == "Filter failure: EXCHANGE_MAX_NUM_ORDERS"
    assert desk.order(quantity="0.001").status == 200


def test_in_step_mode_the_last_price_is_the_reference() -> None:
    desk = Desk(exchange_info=DATA / "exchange-info-com.json", step=True)
    shown = desk.get("/api/v3/exchangeInfo").json["symbols"][0]["filters"]
    assert {f["avgPriceMins"] for f in shown if "avgPriceMins" in f} == {0}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "not JSON"),
        ("[]", "no answer of GET /api/v3/exchangeInfo: it has no array of symbols"),
        ({"symbols": []}, "no answer of GET /api/v3/exchangeInfo"),
        ({"symbols": [{"symbol": "BTCUSDT"}]}, "symbol BTCUSDT: status must be a string, not None"),
        ({"filters": 1}, "symbol BTCUSDT: filters must be an array of objects"),
        ({"filters": [{"filterType": "NOTIONAL"}]}, "symbol BTCUSDT: filter NOTIONAL has no minNotional"),
        ({"orderTypes": "MARKET"}, "symbol BTCUSDT: orderTypes must be an array"),
        ({"baseAssetPrecision": "8"}, "symbol BTCUSDT: baseAssetPrecision must be a whole number, not '8'"),
        ({"symbol": "FOOUSDT"}, "symbol BTCUSDT is not in it"),
    ],
)
def test_bad_files(tmp_path: Path, content: Any, line: str) -> None:
    path = tmp_path / "info.json"
    if isinstance(content, dict) and "symbols" not in content:
        info = json.loads((DATA / "exchange-info-com.json").read_text())["symbols"][0]
        content = {"symbols": [{**info, **content}]}
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SimulatorError) as error:
        Desk(exchange_info=path)
    assert str(error.value).startswith(f"{path}: {line}")
    assert "\n" not in str(error.value)
