"""From an option file to a running BasicSR: check, complete, register, run."""
