"""What a comparison of the book with the account finds, what each finding changes, and what is kept until the next."""

from collections.abc import Collection, Mapping
from decimal import Decimal

import msgspec

from bot.domain.adjustment import Adjustment
from bot.domain.money import ZERO, subtract
from bot.domain.order import Fill


class Accepted(msgspec.Struct, frozen=True):
    """What the last look left behind, kept between looks.

    `foreign`: what the account held beyond the book, by asset. `commissions`: how much of the book's `commissions` has
    been reckoned with, by asset. `last_trade_ids`: the account's executions up to these were seen, by symbol.
    """

    foreign: dict[str, Decimal] = {}
    commissions: dict[str, Decimal] = {}
    last_trade_ids: dict[str, int] = {}


class LateFill(msgspec.Struct, frozen=True):
    """Explained: an execution of the bot's own order that its book lacks. To be booked."""

    fill: Fill
    line: str


class CommissionTaken(msgspec.Struct, frozen=True):
    """Explained: commissions of the bot's orders came out of the coins of one of its positions. To be booked."""

    symbol: str
    asset: str
    quantity: Decimal
    line: str


class ForeignChange(msgspec.Struct, frozen=True):
    """Explained: coins that are not the bot's came or went. To be remembered, with `Accepted`."""

    asset: str
    before: Decimal
    after: Decimal
    line: str


class ForeignLock(msgspec.Struct, frozen=True):
    """Reported: an open order of somebody else locks `locked` of the bot's own coins; what is free is too little."""

    symbol: str
    asset: str
    locked: Decimal
    line: str


class TestnetReset(msgspec.Struct, frozen=True):
    """Explained: the testnet began anew. `removed` leaves the positions, by symbol; `cash` is the cash's change."""

    removed: dict[str, Decimal]
    cash: Decimal
    line: str


class Unexplained(msgspec.Struct, frozen=True):
    """Coins of the bot are missing: stops `symbol`, or all entries where that is empty (the quote asset)."""

    symbol: str
    asset: str
    expected: Decimal
    actual: Decimal
    line: str


class UnknownOrder(msgspec.Struct, frozen=True):
    """An order with the bot's mark that its journal does not know: stops `symbol`, whose base asset is `asset`."""

    symbol: str
    asset: str
    client_order_id: str
    line: str


Finding = LateFill | CommissionTaken | ForeignChange | ForeignLock | TestnetReset | Unexplained | UnknownOrder


class Look(msgspec.Struct, frozen=True):
    """One comparison. `accepted` is to be kept once the explained findings are booked.

    `if_accepted` is what would be kept if a person accepted all unexplained ones; see `accept`.
    """

    findings: tuple[Finding, ...]
    accepted: Accepted
    if_accepted: Accepted

    @property
    def stops(self) -> dict[str, str]:
        """Return the symbols that must not trade on, with the reason in one line; an empty symbol stops all entries."""
        return {f.symbol: f.line for f in reversed(self.findings) if isinstance(f, Unexplained | UnknownOrder)}

    def adjustments(self, time: int) -> tuple[Adjustment, ...]:
        """Return the corrections of the book that the explained findings make; late fills amend their orders."""
        made = []
        for finding in self.findings:
            if isinstance(finding, CommissionTaken):
                name = f"commission-{finding.symbol}-{time}"
                removed = subtract(ZERO, finding.quantity)
                made.append(Adjustment(name, finding.symbol, removed, ZERO, finding.line, time))
            elif isinstance(finding, TestnetReset):
                for symbol, quantity in finding.removed.items():
                    removed = subtract(ZERO, quantity)
                    made.append(Adjustment(f"reset-{symbol}-{time}", symbol, removed, ZERO, finding.line, time))
                if finding.cash:
                    made.append(Adjustment(f"reset-cash-{time}", "", ZERO, finding.cash, finding.line, time))
        return tuple(made)

    def accept(self, time: int, symbols: Collection[str] | None = None) -> tuple[tuple[Adjustment, ...], Accepted]:
        """Return what books the unexplained differences (of these symbols) as they are, and what is kept then.

        `adjustments` are beside it. Missing coins leave the position, missing quote leaves the cash; the coins of an
        unknown order stay foreign. A symbol of "" is the quote asset; None accepts everything.
        """
        made, assets, left, now_foreign = [], set(), set(), set()
        for finding in self.findings:
            if not isinstance(finding, Unexplained | UnknownOrder):
                continue
            if symbols is not None and finding.symbol not in symbols:
                left.add(finding.symbol)
            elif isinstance(finding, Unexplained):
                assets.add(finding.asset)
                missing = subtract(finding.actual, finding.expected)
                quantity, quote = (missing, ZERO) if finding.symbol else (ZERO, missing)
                name = f"accepted-{finding.asset}-{time}"
                made.append(Adjustment(name, finding.symbol, quantity, quote, finding.line, time))
            else:
                now_foreign.add(finding.asset)
        now, then = self.accepted, self.if_accepted
        kept = {asset: amount for asset, amount in now.foreign.items() if asset not in now_foreign}
        came = {asset: amount for asset, amount in then.foreign.items() if asset in now_foreign}
        return tuple(made), Accepted(
            foreign={asset: amount for asset, amount in (kept | came).items() if asset not in assets},
            commissions=now.commissions | {a: paid for a, paid in then.commissions.items() if a in assets},
            # Of an accepted symbol nothing is found again, also while all entries stay stopped.
            last_trade_ids=without_stopped(then.last_trade_ids, now.last_trade_ids, left)
            | {symbol: last for symbol, last in then.last_trade_ids.items() if symbol in (symbols or ())},
        )


def without_stopped(last: Mapping[str, int], before: Mapping[str, int], stopped: Collection[str]) -> dict[str, int]:
    """Return the trade ids seen, as they were `before` where a symbol is stopped; all where all entries are."""
    if "" in stopped:
        return dict(before)
    held_back = {symbol: number for symbol, number in before.items() if symbol in stopped}
    return {symbol: number for symbol, number in last.items() if symbol not in stopped} | held_back
