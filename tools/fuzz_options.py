"""Random mistakes in the shipped option files: the check must answer each with one sentence, and pass only what runs.

    python tools/fuzz_options.py --count 10000 --seed 0 --train 200

Each mutant is a shipped file, shrunk, with one to three random changes: an entry deleted, emptied, renamed with a
typing error, exchanged with another, or replaced by a list, a mapping, nothing, NaN, a huge or a negative number. It is
read and checked as `basicsr-plugins train` does. Of those that pass, some train for two iterations. A finding is any
exception that is not one of ours, or a file left by the check.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import io
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "options")]

from shrinking import OPTIONS, Shrunk  # noqa: E402 - the path above comes first

import basicsr_plugins  # noqa: E402 - the path above comes first
from basicsr_plugins.cli.main import main as run_command  # noqa: E402 - the path above comes first
from basicsr_plugins.core.errors import PluginError  # noqa: E402 - the path above comes first
from basicsr_plugins.core.random_state import preserved_random_state  # noqa: E402 - the path above comes first
from basicsr_plugins.launch.checking import check_run  # noqa: E402 - the path above comes first
from basicsr_plugins.launch.options import complete_options  # noqa: E402 - the path above comes first

#: What BasicSR's parser adds, which no option file has.
ADDED = ("dist", "rank", "world_size", "is_train", "auto_resume", "root_path")
ADDED_PATHS = ("models", "training_states", "log", "visualization", "experiments_root", "results_root")
#: A mutant of which the check takes longer is counted apart: a huge network is being built.
SECONDS = 60
JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, -7, 3.5, 1e-30, float("nan"), float("inf"), -float("inf"), "", "x", "junk/junk", "~",
    [], [1], ["a", None], [[1, 2], [3]], {}, {"a": 1}, {"type": "Nothing"}, {"type": ["L1Loss"]}, {"type": {"a": 1}},
    {1: 2}, {None: 3}, {True: False}, {"type": None}, {"a": {"b": {"c": [{}]}}},
)  # fmt: skip
HUGE = (999, 10**6, 10**18)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every entry below a node."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def parent_of(opt: Any, path: tuple[Any, ...]) -> Any:
    """Return the container of an entry."""
    for key in path[:-1]:
        opt = opt[key]
    return opt


def typo(word: str, rng: random.Random) -> str:
    """Return a word with one letter dropped, doubled or exchanged."""
    place = rng.randrange(len(word))
    return rng.choice(
        [
            word[:place] + word[place + 1 :],
            word[:place] + word[place] + word[place:],
            word[:place] + "q" + word[place + 1 :],
        ]
    )


def mutate(opt: dict[str, Any], rng: random.Random) -> str:
    """Change one entry and say what was done."""
    path = rng.choice(list(places(opt)))
    parent, key = parent_of(opt, path), path[-1]
    shown = ".".join(map(str, path))
    what = rng.choice(("delete", "junk", "junk", "junk", "huge", "rename", "swap", "key", "nest"))
    if what == "delete":
        del parent[key]
    elif what == "huge":
        # a depth of a million blocks is built for hours, as it is asked for
        parent[key] = rng.choice(HUGE[:1] if path[0].startswith("network_") or "num_worker" in shown else HUGE)
    elif what == "rename" and isinstance(key, str):
        parent[typo(key, rng)] = parent.pop(key)
    elif what == "swap":
        other = rng.choice(list(places(opt)))
        if other[: len(path)] == path or path[: len(other)] == other:
            return f"nothing at {shown}"
        theirs = parent_of(opt, other)
        parent[key], theirs[other[-1]] = theirs[other[-1]], parent[key]
        shown += " and " + ".".join(map(str, other))
    elif what == "key" and isinstance(parent, dict):
        parent[rng.choice((1, None, True, 2.5, "", "type"))] = copy.deepcopy(rng.choice(JUNK))
    elif what == "nest":
        parent[key] = rng.choice(([parent[key]], {"type": parent[key]}, {str(key): parent[key]}))
    else:
        parent[key] = copy.deepcopy(rng.choice(JUNK))
    return f"{what} {shown}"


class TooLong(Exception):
    """The check takes longer than ``SECONDS``."""


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Stop what takes longer."""

    def stop(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Fuzzer:
    """Makes mutants in a folder, checks them, trains some of those that pass.

    Args:
        folder: An empty folder.
        files: Shipped option files to start from; all if left out.
    """

    def __init__(self, folder: Path, files: Any = None) -> None:
        basicsr_plugins.register()
        self.place = folder / "here"
        for place in (folder / "material", self.place):
            place.mkdir()
        self.shrunk = Shrunk(folder / "material")
        self.files = list(files or FILES)
        self.bases: dict[str, dict[str, Any]] = {}
        self.findings: collections.Counter[str] = collections.Counter()
        self.examples: dict[str, str] = {}
        self.results: collections.Counter[str] = collections.Counter()

    def mutant(self, name: str, seed: str) -> tuple[dict[str, Any], str]:
        """Return a mutant of a file, and what was done to it."""
        if name not in self.bases:
            with preserved_random_state():
                self.bases[name] = as_written(self.shrunk.options(name))
        opt = copy.deepcopy(self.bases[name])
        rng = random.Random(seed)
        done = [mutate(opt, rng) for _ in range(rng.choice((1, 1, 1, 2, 3))) if opt]
        return opt, "; ".join(done)

    def check(self, opt: dict[str, Any], is_train: bool, rehearsed: bool) -> str:
        """Check a mutant and return ``accepted``, ``refused`` or ``raw``, or ``too long``."""
        file = self.place / "x.yml"
        file.write_text(yaml.safe_dump(opt, sort_keys=False))
        arguments = argparse.Namespace(opt=str(file), set=[], launcher="none", auto_resume=False, debug=False)
        before = sorted(os.listdir(self.place))
        try:
            with at_most(SECONDS), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                check_run(complete_options(arguments, str(self.place), is_train), rehearsed=rehearsed)
            result = "accepted"
        except PluginError as error:
            result = "refused"
            if "Traceback" in str(error) or not str(error).strip():
                return self._found("a message that is none", str(error))
        except TooLong:
            result = "too long"
        except Exception as error:
            return self._found(where_from(error), yaml.safe_dump(opt))
        if sorted(os.listdir(self.place)) != before:
            return self._found("files left by the check", str(os.listdir(self.place)))
        return result

    def train(self, opt: dict[str, Any], is_train: bool) -> str:
        """Run a mutant that was accepted for two iterations."""
        file = self.place / "x.yml"
        file.write_text(yaml.safe_dump(opt, sort_keys=False))
        said = io.StringIO()
        try:
            with at_most(3 * SECONDS), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                short = ["--set", "train.total_iter=2"] if is_train else []
                code = run_command(["train" if is_train else "test", "-opt", str(file), *short])
        except TooLong:
            return "too long"
        except BaseException as error:
            return self._found("trained: " + where_from(error), yaml.safe_dump(opt))
        if code:
            self.examples.setdefault("stopped: " + said.getvalue().strip()[-300:], "")
        return "stopped" if code else "trained"

    def _found(self, where: str, example: str) -> str:
        self.findings[where] += 1
        self.examples.setdefault(where, example)
        return "raw"

    def run(self, count: int, seed: int, train: int, show: bool = False) -> None:
        """Make, check and train; the figures are in ``results``, ``findings`` and ``examples``."""
        os.chdir(self.place)
        accepted = []
        for number in range(count):
            name = self.files[number % len(self.files)]
            opt, done = self.mutant(name, f"{seed}/{number}")
            is_train = "train" in self.bases[name]
            result = self.check(opt, is_train, rehearsed=False)
            self.results[result] += 1
            if result == "raw" and show:
                print(f"{number} {name}: {done}", flush=True)
            if result == "too long" and show:
                print(f"{number} {name}: too long: {done}", flush=True)
            if result == "accepted" and not done.startswith("nothing"):
                accepted.append((number, name, opt, is_train, done))
        for number, name, opt, is_train, done in random.Random(seed).sample(accepted, min(train, len(accepted))):
            result = self.train(opt, is_train)
            self.results[f"run: {result}"] += 1
            if result != "trained" and show:
                print(f"{number} {name}: {result}: {done}", flush=True)


def where_from(error: BaseException) -> str:
    """Return the kind of an error and the last place in this package that it comes from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "basicsr_plugins" in frame.filename]
    place = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:80]}"


def as_written(opt: dict[str, Any]) -> dict[str, Any]:
    """Return options as an option file has them: without what the parser adds."""
    opt = {key: value for key, value in opt.items() if key not in ADDED}
    opt["path"] = {key: value for key, value in opt["path"].items() if key not in ADDED_PATHS}
    for section in opt["datasets"].values():
        for key in ("phase", "scale"):
            section.pop(key, None)
    opt["manual_seed"] = 0
    return opt


FILES = sorted(
    path.relative_to(OPTIONS).as_posix()
    for path in OPTIONS.rglob("*.yml")
    if path.relative_to(OPTIONS).parts[0] not in ("data", "fragments", "sweeps")
)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=20, help="how many of those that pass are run")
    parser.add_argument("--files", nargs="*", help="option files to start from, relative to options/")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), arguments.files)
        fuzzer.run(arguments.count, arguments.seed, arguments.train, show=True)
        os.chdir(ROOT)
    print(f"{arguments.count} mutants, seed {arguments.seed}, {time.monotonic() - start:.0f} s: {dict(fuzzer.results)}")
    for where, times in fuzzer.findings.most_common():
        print(f"{times:5d}  {where}")
    for where in fuzzer.examples:
        if where.startswith("stopped"):
            print(where)
    return bool(fuzzer.findings)


if __name__ == "__main__":
    sys.exit(main())
