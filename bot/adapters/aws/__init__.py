"""AWS behind small functions. Imported only where a setting asks for it: boto3 takes a quarter of a second to load."""

from bot.adapters.aws.keys import keys_from_parameters, keys_from_secret

__all__ = ["keys_from_parameters", "keys_from_secret"]
