"""DynamoDB as a store of klines and trades. It imports boto3, so whoever keeps history elsewhere does not import it."""

from bot.adapters.dynamodb.history import DynamoHistory
from bot.adapters.dynamodb.tables import Tables

__all__ = ["DynamoHistory", "Tables"]
