"""Backtests: how recorded events are read, and how what two versions made of them is shown."""
