"""Seeded degradations, one family per file (`*_degradation.py`)."""
