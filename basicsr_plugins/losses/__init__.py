"""Losses: plain modules on torch alone, one per file (`*_loss.py`)."""
