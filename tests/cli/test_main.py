"""The command line as a whole: every command answers --help without loading what only running it needs."""

from __future__ import annotations

import os
import subprocess
import sys

HELP = """
import contextlib, io, sys
from basicsr_plugins.cli.main import build_parser
commands = next(action for action in build_parser()._actions if action.dest == "command").choices
for name in commands:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
        build_parser().parse_args([name, "--help"])
    assert name in text.getvalue()
heavy = ("torch", "cv2", "basicsr", "peft", "mmengine", "matplotlib")
print(len(commands), [name for name in heavy if name in sys.modules])
"""


def test_help_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    count, loaded = done.stdout.split(maxsplit=1)
    assert int(count) >= 12
    assert loaded.strip() == "[]"


def test_a_reader_that_has_seen_enough_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)  # as `list | head` does, which may be too late for a pipe that holds everything
    done = subprocess.run(
        [sys.executable, "-m", "basicsr_plugins", "list"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
