"""Prometheus: the metrics of a process, served for whoever scrapes them."""

from bot.adapters.prometheus.server import MetricsServer

__all__ = ["MetricsServer"]
