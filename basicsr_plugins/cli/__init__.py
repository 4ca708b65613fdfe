"""The `basicsr-plugins` command."""
