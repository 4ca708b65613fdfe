"""Data sets (`*_dataset.py`) and what they share."""
