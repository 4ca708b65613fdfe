"""Mutation testing: change one expression of a file at a time and see whether its tests notice.

    python tools/mutants.py --files basicsr_plugins/core/options.py --count 8 --seed 0

The mirroring test file (``tests/core/test_options.py``) runs once for each change, in a copy of the clone. Other tests
are named with ``FILE=TEST`` or ``FILE=TEST,TEST``. The exit code is the number of mutants that survived.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("basicsr_plugins", "tests", "tools", "options", "pyproject.toml")
#: the flipped operator, and the one that differs at the boundary alone
OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.GtE, ast.LtE), ast.LtE: (ast.Gt, ast.Lt), ast.Gt: (ast.LtE, ast.GtE), ast.GtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,), ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,), ast.Mod: (ast.FloorDiv,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node may become."""
    if isinstance(node, (ast.Compare, ast.BinOp, ast.BoolOp)):
        operator = node.ops[0] if isinstance(node, ast.Compare) else node.op
        for other in OPERATORS.get(type(operator), ()):
            changed = copy.deepcopy(node)
            if isinstance(changed, ast.Compare):
                changed.ops[0] = other()
            else:
                changed.op = other()
            yield changed
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.Call) and len(node.args) > 1 and not isinstance(node.args[1], ast.Starred):
        if isinstance(node.func, ast.Name) and node.func.id in ("max", "min"):
            return  # the same in any order
        yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield ast.Return(ast.Constant(None))


def mutable_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes in order, without annotations, whose values are not used at run time, and without messages."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield child
                yield from mutable_nodes(child)


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """Return the new node in the place of the old one."""
        return ast.copy_location(self.new, node) if node is self.old else self.generic_visit(node)


def mutants(source: str, count: int, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Yield ``(what is changed, source)`` of ``count`` changes, each drawn once."""
    nodes = list(mutable_nodes(ast.parse(source)))
    sites = [(index, number) for index, node in enumerate(nodes) for number, _ in enumerate(replacements(node))]
    for index, number in sorted(draw.sample(sites, min(count, len(sites)))):
        tree = ast.parse(source)
        old = list(mutable_nodes(tree))[index]
        new = list(replacements(old))[number]
        text = f"line {old.lineno}: {ast.unparse(old)} -> {ast.unparse(new)}"  # type: ignore[attr-defined]
        yield text, ast.unparse(ast.fix_missing_locations(_Replace(old, new).visit(tree)))


def tests_pass(clone: Path, tests: list[str], limit: float) -> bool:
    """Whether the tests pass in the copy of the clone; a run that does not end counts as a failure."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> int:
    """Run every mutant and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", required=True, metavar="FILE[=TEST,TEST]")
    parser.add_argument("--count", type=int, default=8, help="mutants of each file (default 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice (default 0)")
    parser.add_argument("--limit", type=float, default=300, help="seconds for the tests of one mutant (default 300)")
    arguments = parser.parse_args()
    survived = total = 0
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder)
        for name in COPIED:
            place = ROOT / name
            (shutil.copytree if place.is_dir() else shutil.copy)(place, clone / name)
        for given in arguments.files:
            file, _, tests = given.partition("=")
            path = Path(file)
            mirror = Path("tests", *path.parts[1:-1], f"test_{path.name}")
            chosen = tests.split(",") if tests else [str(mirror)]
            source = (ROOT / path).read_text(encoding="utf-8")
            if not tests_pass(clone, chosen, arguments.limit):
                parser.error(f"{', '.join(chosen)}: these tests do not pass on the unchanged {file}")
            for text, changed in mutants(source, arguments.count, random.Random(arguments.seed)):
                (clone / path).write_text(changed, encoding="utf-8")
                alive = tests_pass(clone, chosen, arguments.limit)
                print(f"{'SURVIVED' if alive else 'killed  '} {file} {text}", flush=True)
                total, survived = total + 1, survived + alive
            (clone / path).write_text(source, encoding="utf-8")
    print(f"{total - survived} of {total} mutants killed")
    return survived


if __name__ == "__main__":
    sys.exit(main())
