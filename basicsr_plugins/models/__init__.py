"""Training recipes, one per file (`*_model.py`), on one shared base."""
