"""The bot's DynamoDB tables on a server for tests."""

from bot.adapters.dynamodb import DynamoHistory
from bot.config import AwsSettings
from bot.supervision import SystemClock
from tests.aws.servers import REGION
from tests.support.builders import NOON

KEEP_DAYS = 7
PATIENCE_MS = 60_000
"""A test machine may be slow; a test about impatience gives less."""


class ClockAt(SystemClock):
    """The day of the builders' klines, while pauses and time-outs are real."""

    def __init__(self, time_ms: int = NOON) -> None:
        super().__init__()
        self.time_ms = time_ms

    def now_ms(self) -> int:
        return self.time_ms


def aws_settings(url: str, prefix: str, **more: object) -> AwsSettings:
    return AwsSettings.model_validate({"region": REGION, "endpoint_url": url, "table_prefix": prefix, **more})


def open_history(
    url: str, prefix: str, clock: SystemClock | None = None, patience_ms: int = PATIENCE_MS, **more: object
) -> DynamoHistory:
    """Open tables that are there already, or that the test makes with `made`."""
    return DynamoHistory(aws_settings(url, prefix, **more), KEEP_DAYS, clock or ClockAt(), patience_ms)


def made(history: DynamoHistory) -> DynamoHistory:
    for name in history.tables.names:
        history.tables.create(name)
    return history
