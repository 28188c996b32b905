"""Decisions: values in, values out. Nothing here knows a clock, a thread, a socket or a log."""
