"""The tables: made once, verified, one book's; and every way in which DynamoDB cannot be used, as one line."""

import json
from decimal import Decimal

import boto3
import pytest

from bot.adapters.dynamodb import DynamoHistory
from bot.ports import ConfigurationRefused, StoreBusy, StoreError
from tests.adapters.servers import http_server, reply
from tests.aws.fault_proxy import cut_after, fault_proxy
from tests.aws.servers import aws_client, running_moto
from tests.aws.tables import KEEP_DAYS, ClockAt, aws_settings, made, open_history
from tests.contract.test_store import a_trade
from tests.support.builders import NOON, a_kline, klines_of
from tests.support.ports import unused_port

pytestmark = pytest.mark.usefixtures("aws_credentials")
DAY_MS = 86_400_000
BOOK = ("testnet", "com", "uid 7", "bulkhead")


def test_both_are_made_with_the_contracts_keys_and_a_ttl(moto_url, table_prefix):
    history = open_history(moto_url, table_prefix)
    klines, trades = history.tables.names
    assert (klines, trades) == (f"{table_prefix}Crypto_Table", f"{table_prefix}Crypto_Trades")
    assert history.tables.create(klines) == f"made, at {moto_url}, pay per request, open klines expire"
    assert history.tables.create(trades) == f"made, at {moto_url}, pay per request"
    assert history.tables.create(klines) == history.tables.examine(klines)
    client = aws_client("dynamodb", moto_url)
    for name, sort_key in ((klines, "kline_key"), (trades, "client_order_id")):
        table = client.describe_table(TableName=name)["Table"]
        assert [key["AttributeName"] for key in table["KeySchema"]] == ["symbol", sort_key]
    ttl = client.describe_time_to_live(TableName=klines)["TimeToLiveDescription"]
    assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_units_are_provisioned_where_that_is_asked_for(dynalite, table_prefix):
    history = open_history(dynalite.url, table_prefix, billing="provisioned", write_units=7, read_units=3)
    line = history.tables.create(history.tables.klines)
    assert "7 write and 3 read units a second" in line
    assert "this server has no TTL" in line, "dynalite only says that it is off"


def test_items_have_the_contracts_attributes(dynalite, table_prefix):
    """Section 3, read as another program would: numbers are N, what is unknown is absent."""
    history = made(open_history(dynalite.url, table_prefix))
    update = a_kline("1E-8", event_time=NOON + 2_000, is_closed=False, received_event_time=NOON + 2_001)
    commissions = (("BTC", Decimal("1E-8")), ("BNB", Decimal("0.10")))
    history.write([update, a_kline("2.50", quote_volume=None)], [a_trade(commissions=commissions)])
    client = aws_client("dynamodb", dynalite.url)
    closed, opened = sorted(
        client.scan(TableName=history.tables.klines)["Items"], key=lambda item: item["is_closed"]["BOOL"], reverse=True
    )
    key = {"symbol": {"S": "BTCUSDT"}, "client_order_id": {"S": "bh-1"}}
    trade = client.get_item(TableName=history.tables.trades, Key=key)["Item"]
    assert opened == {
        "symbol": {"S": "BTCUSDT"},
        "kline_key": {"S": f"1m#{NOON}#{NOON + 2_000}"},
        "interval": {"S": "1m"},
        "open_time": {"N": str(NOON)},
        "close_time": {"N": str(NOON + 59_999)},
        "event_time": {"N": str(NOON + 2_000)},
        "received_event_time": {"N": str(NOON + 2_001)},
        **{name: {"N": "0.00000001"} for name in ("open", "high", "low", "close", "quote_volume")},
        "volume": {"N": "1"},
        "is_closed": {"BOOL": False},
        "expires_at": {"N": str(NOON // 1000 + KEEP_DAYS * 86_400)},
    }
    assert closed["kline_key"] == {"S": f"1m#{NOON}#closed"}
    assert not {"expires_at", "quote_volume", "received_event_time"} & set(closed)
    assert trade == key | {
        "side": {"S": "BUY"},
        "close": {"N": "100.5"},
        "sale_price": {"N": "100.5"},
        "quantity": {"N": "0.00001"},
        "volume": {"N": "0.001005"},
        "commission": {"N": "0.00000001"},
        "commission_asset": {"S": "BTC"},
        "ticker": {"S": "BTCUSDT"},
        "order_id": {"N": "7"},
        "time": {"N": str(NOON)},
        "mode": {"S": "paper"},
        "bot_id": {"S": "bulkhead"},
        "reason": {"S": "fell 1.20 % from 101.7 to 100.5"},
        "commissions": {"S": '[["BTC","0.00000001"],["BNB","0.1"]]'},
    }


def test_an_open_kline_is_hidden_once_it_expired_whether_it_is_deleted_or_not(dynalite, table_prefix):
    clock = ClockAt()
    history = made(open_history(dynalite.url, table_prefix, clock))
    updates = [a_kline(event_time=NOON + second, is_closed=False) for second in range(3)]
    closed = klines_of("1", "2")
    history.write([*updates, *closed], [])
    clock.time_ms = NOON + KEEP_DAYS * DAY_MS - 1
    assert list(history.klines()) == [*updates, *closed]
    clock.time_ms += 1
    assert list(history.klines()) == list(history.klines("BTCUSDT", limit=9)) == closed
    assert history.last_klines("BTCUSDT", 9) == closed


def test_tables_belong_to_one_book(dynalite, table_prefix):
    tables = made(open_history(dynalite.url, table_prefix)).tables
    assert tables.identity() is None
    tables.belong_to("testnet", "com", "", "bulkhead")
    assert tables.identity() is None, "whose account it is was not known yet"
    tables.belong_to(*BOOK)
    tables.belong_to(*BOOK)
    tables.belong_to("testnet", "com", "", "bulkhead")
    assert tables.identity() == dict(zip(("mode", "exchange", "account", "bot_id"), BOOK, strict=True))
    for other in (("live", *BOOK[1:]), (*BOOK[:3], "another"), ("testnet", "us", "", "bulkhead")):
        with pytest.raises(ConfigurationRefused, match=r"belong to another run \(.* is '.*', not '.*'\)") as caught:
            tables.belong_to(*other)
        assert "\n" not in str(caught.value)
    tables.belong_to("testnet", "com", "key a", "bulkhead", formerly=frozenset(["uid 7"]))
    assert tables.identity()["account"] == "key a"


def test_whose_tables_it_is_is_no_trade_and_stays_beside_the_symbols(dynalite, table_prefix):
    history = made(open_history(dynalite.url, table_prefix))
    history.write(klines_of("1"), [a_trade(symbol="ETHUSDT")])
    history.tables.belong_to(*BOOK)
    history.write(klines_of("1", symbol="DOGEUSDT"), [])
    assert history.symbols() == ["BTCUSDT", "DOGEUSDT", "ETHUSDT"]
    assert list(history.trades()) == [a_trade(symbol="ETHUSDT")]
    assert history.tables.identity()["account"] == "uid 7"


def test_the_first_start_whose_answer_got_lost_is_the_books_own(dynalite, table_prefix):
    made(open_history(dynalite.url, table_prefix))
    with fault_proxy(dynalite.url) as proxy:
        proxy.fail(cut_after(), "UpdateItem", times=1)
        open_history(proxy.url, table_prefix).tables.belong_to(*BOOK)
        assert proxy.faults == 1


@pytest.mark.parametrize("wrong", [{}, {"open": {"S": "much"}}, {"open": {"BOOL": True}}, {"is_closed": {"N": "1"}}])
def test_an_item_of_another_program_is_named(dynalite, table_prefix, wrong):
    history = made(open_history(dynalite.url, table_prefix))
    history.write(klines_of("1"), [])
    client = aws_client("dynamodb", dynalite.url)
    (item,) = client.scan(TableName=history.tables.klines)["Items"]
    theirs = {key: item[key] for key in ("symbol", "kline_key")} if not wrong else item | wrong
    client.put_item(TableName=history.tables.klines, Item=theirs)
    with pytest.raises(StoreError, match=f"did not write .BTCUSDT 1m#{NOON}#closed: .*: delete it") as caught:
        list(history.klines())
    assert "\n" not in str(caught.value)


# What is wrong, each as one line with the fix


def told(history, kind=StoreError):
    """The line of a start's first question, which is the same for whatever is asked."""
    lines = set()
    for call in (lambda: history.tables.verify(history.tables.klines), lambda: history.write(klines_of("1"), [])):
        with pytest.raises(kind) as caught:
            call()
        assert isinstance(caught.value, StoreBusy) == (kind is StoreBusy)
        lines.add(str(caught.value))
    assert not any("\n" in line for line in lines)
    return " | ".join(sorted(lines))


def test_a_missing_table_and_a_wrong_region(moto_url, table_prefix):
    made(open_history(moto_url, table_prefix))
    elsewhere = DynamoHistory(
        aws_settings(moto_url, table_prefix, region="us-west-2"), KEEP_DAYS, ClockAt(), patience_ms=1_000
    )
    assert f"there is no table {table_prefix}Crypto_Table at {moto_url}: make it with check --create" in told(elsewhere)


def test_no_region(moto_url, table_prefix):
    history = DynamoHistory(aws_settings(moto_url, table_prefix, region=""), KEEP_DAYS, ClockAt(), 1_000)
    assert told(history) == "no AWS region is known: set aws.region, such as eu-central-1"


def test_a_region_of_no_name(table_prefix, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "Frankfurt!")
    history = DynamoHistory(aws_settings("", table_prefix, region=""), KEEP_DAYS, ClockAt(), 1_000)
    assert told(history) == "aws.region is no region's name: write it as eu-central-1"


def test_no_credentials(moto_url, table_prefix, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    history = open_history(moto_url, table_prefix)
    assert told(history).startswith("AWS credentials are needed, none found: set AWS_ACCESS_KEY_ID")
    with pytest.raises(StoreError, match="none found"):
        history.credentials()


def test_a_profile_that_is_not_there(moto_url, table_prefix, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "there is no AWS profile of the name in AWS_PROFILE" in told(open_history(moto_url, table_prefix))


def test_an_address_where_nobody_listens_is_away(table_prefix):
    history = open_history(f"http://127.0.0.1:{unused_port()}", table_prefix, patience_ms=200)
    assert "cannot be reached: check aws.region, aws.endpoint_url and the network" in told(history, StoreBusy)


def test_an_address_that_is_none(table_prefix, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    assert "aws.endpoint_url is no address" in told(open_history("", table_prefix))


def test_a_server_of_another_kind_is_away(table_prefix):
    with http_server() as script:
        script.on("/", reply("<html>welcome</html>"))
        history = open_history(script.url, table_prefix, patience_ms=200)
        assert "gave an answer that is not DynamoDB's" in told(history, StoreBusy)


def test_a_table_of_another_program(dynalite, table_prefix):
    aws_client("dynamodb", dynalite.url).create_table(
        TableName=f"{table_prefix}Crypto_Table",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    history = open_history(dynalite.url, table_prefix)
    with pytest.raises(StoreError, match=r"has the keys id \(N\), not symbol \(S\), kline_key \(S\): it is of another"):
        history.tables.create(history.tables.klines)


def test_permissions_and_a_wrong_secret(table_prefix, monkeypatch):
    """moto enforces IAM after the calls that make the user."""
    with running_moto(INITIAL_NO_AUTH_ACTION_COUNT="3") as url:
        iam = boto3.client("iam", endpoint_url=url, region_name="us-east-1")
        iam.create_user(UserName="bot")
        allow = {"Effect": "Allow", "Action": ["dynamodb:DescribeTable"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        iam.put_user_policy(UserName="bot", PolicyName="p", PolicyDocument=policy)
        key = iam.create_access_key(UserName="bot")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        history = open_history(url, table_prefix)
        with pytest.raises(StoreError, match="there is no table"):
            history.tables.verify(history.tables.klines)
        with pytest.raises(
            StoreError, match=f"access denied to table {table_prefix}Crypto_Trades .* allow dynamodb:GetItem"
        ):
            history.write(klines_of("1"), [])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s" * 40)
        line = told(open_history(url, table_prefix))
        assert "access denied" in line or "does not accept these AWS credentials" in line
        assert "s" * 40 not in line
