#!/usr/bin/env bash
# The whole test suite, in the active virtual environment or in .venv:  bash tools/run_tests.sh [pytest arguments]
set -euo pipefail
# shellcheck source=tools/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment test
cd "$ROOT"
say "ruff"
ruff check .
ruff format --check .
say "mypy"
mypy
say "lint-imports"
lint-imports
say "examples in docstrings"
OMP_NUM_THREADS=1 python -m pytest -q --doctest-modules --ignore=basicsr_plugins/_startup basicsr_plugins
say "pytest"
# one process a core and one thread a process: tiny networks gain nothing from threads, and idle ones spin
OMP_NUM_THREADS=1 python -m pytest --numprocesses "${TEST_PROCESSES:-auto}" --dist loadfile "$@"
