"""Restore photographs: files and folders by the command ``basicsr-plugins restore``, arrays by ``load_restorer``."""
