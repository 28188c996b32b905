"""Fixtures for every folder."""

from tests.aws.servers import aws_credentials, dynalite, moto_url, table_prefix

__all__ = ["aws_credentials", "dynalite", "moto_url", "table_prefix"]
