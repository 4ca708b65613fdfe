"""Networks, one per file (`*_arch.py`)."""
