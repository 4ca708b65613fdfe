"""Metrics for `val.metrics`, one family per file (`*_metric.py`)."""
