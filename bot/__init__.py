"""Bulkhead: a crypto trading bot built of actors that fail in isolation."""
