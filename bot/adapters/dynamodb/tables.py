"""The two tables: how they are made, what must be true of them, whose book is in them. Source: contract, 3 and 6."""

from typing import Any

from bot.adapters.dynamodb.connection import ConditionFailed, Connection, Refused, TableMissing
from bot.adapters.dynamodb.items import EXPIRES_AT
from bot.config import AwsSettings
from bot.ports import ConfigurationRefused, StoreBusy, StoreError

BOOK_KEY = {"symbol": {"S": "#book"}, "client_order_id": {"S": "#book"}}
"""Of the one item of the trades table that is no trade: whose book it is, and its symbols. No symbol has a #."""

_SORT_KEYS = {"Crypto_Table": "kline_key", "Crypto_Trades": "client_order_id"}
_UNKNOWN = "UnknownOperationException"
_READY_WITHIN_MS = 60_000
_LOOK_EVERY_S = 0.1
_IDENTITY = ("mode", "exchange", "account", "bot_id")


class Tables:
    """The tables that the settings name. Each method raises StoreError, StoreBusy."""

    def __init__(self, connection: Connection, aws: AwsSettings) -> None:
        self._connection = connection
        self._aws = aws
        self._has_ttl = True
        self.klines = f"{aws.table_prefix}Crypto_Table"
        self.trades = f"{aws.table_prefix}Crypto_Trades"

    @property
    def names(self) -> tuple[str, str]:
        """The names of both."""
        return self.klines, self.trades

    def create(self, name: str) -> str:
        """Make a table where it is absent, wait until it can be used, and return `examine`'s line."""
        made = ""
        try:
            self.verify(name)
        except TableMissing:
            try:
                self._ask("create_table", name, **self._definition(name))
            except Refused as error:
                if error.code != "ResourceInUseException":  # another one makes it at the same time
                    raise
            made = "made, "
        self._wait_until_ready(name)
        if name == self.klines and not self._expires() and self._has_ttl:
            wanted = {"Enabled": True, "AttributeName": EXPIRES_AT}
            try:
                self._ask("update_time_to_live", name, TableName=name, TimeToLiveSpecification=wanted)
            except Refused as error:
                if error.code != _UNKNOWN:
                    raise
                self._has_ttl = False
        return made + self.examine(name)

    def verify(self, name: str, deadline_ms: int | None = None) -> dict[str, Any]:
        """Return a table's description. Raises TableMissing; StoreError where its keys are not the contract's."""
        found: dict[str, Any] = self._ask("describe_table", name, deadline_ms, TableName=name)["Table"]
        keys = {key["KeyType"]: key["AttributeName"] for key in found["KeySchema"]}
        types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
        wanted = {"HASH": "symbol", "RANGE": _SORT_KEYS[name.removeprefix(self._aws.table_prefix)]}
        if keys != wanted or any(types.get(key) != "S" for key in wanted.values()):
            has = ", ".join(f"{key} ({types.get(key)})" for key in keys.values())
            raise StoreError(
                f"table {name} {self._connection.place} has the keys {has}, not {wanted['HASH']} (S), "
                f"{wanted['RANGE']} (S): it is of another program; set another aws.table_prefix"
            )
        return found

    def examine(self, name: str) -> str:
        """Return in one line what a table is, for people; raises where it is absent, wrong or cannot be used yet."""
        found = self.verify(name)
        if found["TableStatus"] not in ("ACTIVE", "UPDATING"):
            raise StoreBusy(f"table {name} {self._connection.place} is {found['TableStatus']}: wait a minute")
        mode = found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
        units = found.get("ProvisionedThroughput", {})
        billing = (
            "pay per request"
            if mode == "PAY_PER_REQUEST"
            else f"{units.get('WriteCapacityUnits')} write and {units.get('ReadCapacityUnits')} read units a second"
        )
        if name != self.klines:
            return f"{self._connection.place}, {billing}"
        return f"{self._connection.place}, {billing}, {self._expiry()}"

    def claim(
        self, mode: str, exchange: str, account: str, bot_id: str, formerly: frozenset[str] = frozenset()
    ) -> None:
        """Verify both tables and make them this book's, all in the time of one call. Raises as `belong_to`."""
        self._connection.open()  # not in that time: DynamoDB is not asked
        deadline_ms = self._connection.deadline()
        for name in self.names:
            self.verify(name, deadline_ms)
        self.belong_to(mode, exchange, account, bot_id, formerly, deadline_ms)

    def belong_to(
        self,
        mode: str,
        exchange: str,
        account: str,
        bot_id: str,
        formerly: frozenset[str] = frozenset(),
        deadline_ms: int | None = None,
    ) -> None:
        """Make the tables this book's where they are nobody's, as `DataDirectory.belong_to` does with a directory.

        An account still unknown (empty) is not compared, and nothing is written then. A book whose account was named
        as in `formerly` gets the new name. Raises ConfigurationRefused, both named, if they are another's.
        """
        given = dict(zip(_IDENTITY, (mode, exchange, account, bot_id), strict=True))
        known = self.identity(deadline_ms)
        if known is None and account:
            try:
                self._write_identity(given, "attribute_not_exists(#mode)", deadline_ms)
                return
            except ConditionFailed:  # another was first, or it was this very write, whose answer got lost
                known = self.identity(deadline_ms)
        if known is None:
            return
        if known["account"] in formerly or not account:
            given["account"] = account or known["account"]
        differing = [
            f"{key} is {value!r}, not {given[key]!r}"
            for key, value in known.items()
            if value != given[key] and (key != "account" or value not in formerly)
        ]
        if differing:
            raise ConfigurationRefused(
                f"the tables {self.klines} and {self.trades} {self._connection.place} belong to another run "
                f"({'; '.join(differing)}): set another aws.table_prefix"
            )
        if known != given:
            self._write_identity(given, None, deadline_ms)

    def identity(self, deadline_ms: int | None = None) -> dict[str, str] | None:
        """Return whose book is in the tables: mode, exchange, account, bot_id. None if it is nobody's yet."""
        book = self._book(deadline_ms)
        return {key: book[key]["S"] for key in _IDENTITY} if "mode" in book else None

    def symbols(self, deadline_ms: int | None = None) -> list[str]:
        """Return the symbols that were ever written, sorted."""
        return sorted(self._book(deadline_ms).get("symbols", {}).get("SS", ()))

    def add_symbols(self, symbols: set[str], deadline_ms: int) -> None:
        """Remember symbols, once; to be called before anything of them is written."""
        self._update(
            UpdateExpression="ADD #symbols :symbols",
            names=("symbols",),
            values={":symbols": {"SS": sorted(symbols)}},
            deadline_ms=deadline_ms,
        )

    def _book(self, deadline_ms: int | None = None) -> dict[str, Any]:
        wanted = {"TableName": self.trades, "Key": BOOK_KEY, "ConsistentRead": True}
        answer = self._ask("get_item", self.trades, deadline_ms, **wanted)
        return dict(answer.get("Item", {}))

    def _write_identity(self, identity: dict[str, str], condition: str | None, deadline_ms: int | None) -> None:
        sets = ", ".join(f"#{key} = :{key}" for key in identity)
        more: dict[str, Any] = {"ConditionExpression": condition} if condition else {}
        values = {f":{key}": {"S": value} for key, value in identity.items()}
        self._update(_IDENTITY, values, deadline_ms, UpdateExpression=f"SET {sets}", **more)

    def _update(
        self, names: tuple[str, ...], values: dict[str, Any], deadline_ms: int | None = None, **parameters: Any
    ) -> None:
        self._ask(
            "update_item",
            self.trades,
            deadline_ms,
            TableName=self.trades,
            Key=BOOK_KEY,
            ExpressionAttributeNames={f"#{name}": name for name in names},
            ExpressionAttributeValues=values,
            **parameters,
        )

    def _wait_until_ready(self, name: str) -> None:
        rounds = int(_READY_WITHIN_MS / 1000 / _LOOK_EVERY_S)
        for _ in range(rounds):
            try:
                if self.verify(name)["TableStatus"] == "ACTIVE":
                    return
            except TableMissing:  # so it is for a moment after it was made
                pass
            self._connection.pause(_LOOK_EVERY_S, self._connection.deadline())
        raise StoreBusy(f"table {name} {self._connection.place} is not ready after a minute: try again")

    def _expires(self) -> bool:
        """Whether DynamoDB deletes what has expired."""
        try:
            answer = self._ask("describe_time_to_live", self.klines, TableName=self.klines)
        except Refused as error:
            if error.code != _UNKNOWN:
                raise
            self._has_ttl = False
            return False
        found = answer["TimeToLiveDescription"]
        return found["TimeToLiveStatus"] in ("ENABLED", "ENABLING") and found.get("AttributeName") == EXPIRES_AT

    def _expiry(self) -> str:
        if self._expires():
            return "open klines expire"
        if not self._has_ttl:  # a server for tests
            return "this server has no TTL: open klines that have expired are hidden, not deleted"
        return f"TTL on {EXPIRES_AT} is off, so open klines stay and are paid for: check --create switches it on"

    def _definition(self, name: str) -> dict[str, Any]:
        keys = ("symbol", _SORT_KEYS[name.removeprefix(self._aws.table_prefix)])
        billing: dict[str, Any] = {"BillingMode": "PAY_PER_REQUEST"}
        if self._aws.billing == "provisioned":
            units = {"ReadCapacityUnits": self._aws.read_units, "WriteCapacityUnits": self._aws.write_units}
            billing = {"BillingMode": "PROVISIONED", "ProvisionedThroughput": units}
        return {
            "TableName": name,
            "KeySchema": [
                {"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=True)
            ],
            "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key in keys],
            **billing,
        }

    def _ask(self, operation: str, table: str, deadline_ms: int | None = None, **parameters: Any) -> dict[str, Any]:
        deadline_ms = self._connection.deadline() if deadline_ms is None else deadline_ms
        answer: dict[str, Any] = self._connection.insist(
            lambda: self._connection.ask(operation, table, **parameters), deadline_ms
        )
        return answer
