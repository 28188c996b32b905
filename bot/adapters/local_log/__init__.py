"""The event log within one process: so much in memory, so much more on disk, nothing that outlives the process."""

from bot.adapters.local_log.log import LocalLog

__all__ = ["LocalLog"]
