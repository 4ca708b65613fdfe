# Sourced by quickstart.sh and run_tests.sh: the active virtual environment, or .venv in the clone, with everything in it.
#   prepare_environment EXTRAS     e.g. prepare_environment demo
# Order matters: torch and torchvision must come as one matching pair, and basicsr's sdist needs torch, cython and numpy
# to build (without --no-build-isolation pip would download torch a second time into a throw-away environment).

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
CONSTRAINTS="$ROOT/tools/constraints.txt"

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

quiet_pip() {
    # shellcheck disable=SC2068 # words are meant to be split as given
    python -m pip --disable-pip-version-check install --quiet --constraint "$CONSTRAINTS" "$@"
}

prepare_environment() {
    local extras="$1"
    if [ -z "${VIRTUAL_ENV:-}" ]; then
        if [ ! -x "$ROOT/.venv/bin/python" ]; then
            say "making a virtual environment in .venv"
            "${PYTHON:-python3}" -m venv "$ROOT/.venv" || fail "python3 -m venv failed; install Python 3.9 or newer with venv"
        fi
        # shellcheck disable=SC1091
        . "$ROOT/.venv/bin/activate"
    fi
    python -c 'import sys; sys.exit(sys.version_info < (3, 9))' || fail "Python 3.9 or newer is needed, this is $(python -V)"
    local stamp
    stamp="$VIRTUAL_ENV/.basicsr_plugins-$(cat "$CONSTRAINTS" "$ROOT/setup.py" "$ROOT/tools/environment.sh" | cksum | cut -d' ' -f1)-$extras"
    # what the tests need includes what the demo needs
    if [ -f "$stamp" ] || [ -f "${stamp%-"$extras"}-test" ]; then
        say "using $VIRTUAL_ENV"
        return
    fi
    say "installing into $VIRTUAL_ENV (torch and its libraries are several GB the first time)"
    quiet_pip "pip>=23" setuptools wheel cython
    quiet_pip torch torchvision numpy
    install_basicsr
    # no build isolation here either: setuptools is there already
    quiet_pip --no-build-isolation -e "$ROOT[$extras]"
    touch "$stamp"
}

install_basicsr() {
    if ! python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("basicsr") is None)'; then
        python "$ROOT/tools/install_basicsr.py" "$VIRTUAL_ENV/stock" --disable-pip-version-check --quiet \
            --constraint "$CONSTRAINTS" || fail "basicsr cannot be installed"
    fi
}
