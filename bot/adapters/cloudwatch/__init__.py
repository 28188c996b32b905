"""Amazon CloudWatch: where points of metrics are kept."""

from bot.adapters.cloudwatch.sink import CloudWatch

__all__ = ["CloudWatch"]
