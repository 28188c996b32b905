"""Questions put to history: reading kline files, backtests and sweeps, without actors."""
