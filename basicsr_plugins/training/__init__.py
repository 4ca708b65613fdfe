"""The training engine: one idea per file, put together by `models/restoration_model.py`."""
