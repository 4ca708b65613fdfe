#!/usr/bin/env bash
# The table of docs/builtin_model.md from the weights in the package:
#   bash tools/evaluate_builtin.sh [FOLDER] [OUT] [arguments of evaluate_builtin.py]
# FOLDER  whole photographs that the model has not seen; default: datasets/builtin/test (tools/builtin_photographs.py)
# OUT     where rows.csv and table.md are written; default: builtin_results
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
FOLDER="${1:-datasets/builtin/test}" OUT="${2:-builtin_results}"
shift $(($# < 2 ? $# : 2))
if [ ! -d "$FOLDER" ]; then
    echo "error: there is no folder $FOLDER; write it with: python $ROOT/tools/builtin_photographs.py datasets/builtin --debian DIR" >&2
    exit 1
fi
PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" "${PYTHON:-$(command -v python || command -v python3)}" \
    "$ROOT/tools/evaluate_builtin.py" "$FOLDER" --out "$OUT" "$@"
