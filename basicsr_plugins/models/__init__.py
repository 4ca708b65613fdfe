"""Training recipes, one per file (`*_model.py`), on one shared base."""

from basicsr_plugins import stock

# BasicSR first: importing it runs the start-up hook, which imports every recipe. Were that to happen in the middle of
# one recipe's own imports, the others would find their base half loaded.
stock.registries()
