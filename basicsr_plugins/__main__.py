"""``python -m basicsr_plugins`` is the ``basicsr-plugins`` command."""

import sys

from basicsr_plugins.cli.main import main

sys.exit(main())
