#!/usr/bin/env bash
# Train the built-in model: base, seven adapters, estimator, then the test on photographs that it has not seen.
#   bash tools/train_builtin.sh [FOLDER] [STAGES]
# FOLDER  where datasets/builtin lies (tools/builtin_photographs.py writes it) and experiments/ is written; default: the
#         current folder
# STAGES  words out of: base adapters adapter:NAME estimator test pack; default: all but adapter:NAME
# Every stage goes on from its newest checkpoint; a stage that is finished is skipped. All seeds are in the option files.
# The first stage after the base rounds it to float16 (experiments/builtin_base/models/base.safetensors): that is the base
# from then on. To train it further, remove that file and the adapters.
# Environment:
#   DEVICE=cpu|gpu      settings of size: cpu as in the option files (default), gpu as below
#   JOBS=2              adapters side by side (default: 1 on a CPU, 7 on a GPU)
#   LIMIT_BASE, LIMIT_ADAPTERS, LIMIT_ESTIMATOR
#                       most seconds of a stage; then SIGTERM, and what came after the last checkpoint is lost
#   ITER_BASE, ITER_ADAPTERS, ITER_ESTIMATOR
#                       length in iterations; 'fit' measures the speed first and takes what fills the limit (a new run
#                       only: a run that goes on keeps the length it was started with)
#   SET="key=value ..." further overrides for every stage, e.g. SET="manual_seed=1"
#   PROBE=200           iterations that 'fit' measures
#   THREADS=1           threads of a process
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
fi
say() { printf '\n== %s  %s\n' "$(date -u +%H:%M:%S)" "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

FOLDER="${1:-.}"
shift || true
ADAPTERS="rain noise haze low_light blur jpeg snow"
STAGES="${*:-base adapters estimator test pack}"
for stage in $STAGES; do
    known=" base adapters estimator test pack $(printf 'adapter:%s ' $ADAPTERS)"
    [ "${known#* "$stage" }" != "$known" ] || fail "unknown stage '$stage'; allowed:$known"
done
[ -d "$FOLDER" ] || fail "there is no folder $FOLDER"
cd "$FOLDER"
[ -d datasets/builtin/train ] ||
    fail "there is no datasets/builtin/train in $PWD; write it with: python $ROOT/tools/builtin_photographs.py datasets/builtin --debian DIR"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export OMP_NUM_THREADS="${THREADS:-1}" MKL_NUM_THREADS="${THREADS:-1}"
# the interpreter's own name first: an environment without the package's entry point will do
PYTHON="${PYTHON:-$(command -v python || command -v python3)}"
LOGS="$PWD/logs" PROBE="${PROBE:-200}"
mkdir -p "$LOGS"

base_set="" adapter_set="" estimator_set=""
case "${DEVICE:-cpu}" in
cpu) : "${JOBS:=1}" ;;
gpu)
    : "${JOBS:=7}"
    gpu="train.channels_last=true datasets.train.pin_memory=true datasets.train.persistent_workers=true datasets.train.dataset_enlarge_ratio=10000"
    base_set="$gpu train.precision=bf16 datasets.train.gt_size=192 datasets.train.batch_size_per_gpu=48 datasets.train.num_worker_per_gpu=8"
    adapter_set="$gpu train.precision=bf16 datasets.train.gt_size=192 datasets.train.batch_size_per_gpu=16"
    estimator_set="$gpu datasets.train.batch_size_per_gpu=64 datasets.train.num_worker_per_gpu=10 logger.save_checkpoint_freq=1000"
    ;;
*) fail "DEVICE=$DEVICE: cpu or gpu" ;;
esac

finished() { [ -e "experiments/$1/models/$2_latest$3" ]; }

# run NAME LIMIT FILE [OVERRIDES]: one training, its output in logs/NAME.log; the exit status 124 means the time was up
run() {
    local name="$1" limit="$2" file="$3"
    shift 3
    timeout --signal=TERM --kill-after=60 "$limit" "$PYTHON" -m basicsr_plugins train \
        -opt "$ROOT/options/builtin/$file" --auto_resume --set "name=$name" "$@" >>"$LOGS/$name.log" 2>&1
}

# newest NAME WHAT [SUFFIX]: weights of a run: the last ones, else those of its newest checkpoint, else nothing
newest() {
    local models="experiments/$1/models"
    if finished "$1" "$2" "${3:-}"; then
        echo "$models/$2_latest${3:-}"
    else
        { find "$models" -maxdepth 1 -name "$2_[0-9]*${3:-}" 2>/dev/null || true; } | sort -V | tail -n 1
    fi
}

# train NAME LIMIT ITERATIONS FILE [OVERRIDES]
train() {
    local name="$1" limit="$2" iterations="$3" file="$4" status=0
    shift 4
    local length="train.total_iter=$iterations train.scheduler.T_max=$iterations"
    if [ "$iterations" = fit ]; then
        length="$(cat "$LOGS/$name.length" 2>/dev/null || fit "$name" "$limit" "$file" "$@")"
    elif [ -z "$iterations" ]; then
        length=""
    fi
    say "$name ${length:-as long as its file says}; log: $LOGS/$name.log"
    # shellcheck disable=SC2086 # several overrides
    run "$name" "$limit" "$file" "$@" $length ${SET:-} || status=$?
    case "$status" in
    0 | 124 | 137) ;;
    *)
        tail -n 15 "$LOGS/$name.log" >&2
        fail "$name stopped with status $status"
        ;;
    esac
    [ "$status" -eq 0 ] || say "$name: its time was up; it goes on from its last checkpoint with the same command"
    { grep -h 'iter:' "$LOGS/$name.log" || true; } | tail -n 1 | cut -c 1-160
}

# fit NAME LIMIT FILE [OVERRIDES]: print the overrides that make a run fill 92 % of its limit, and keep them for a resume
fit() {
    local name="$1" limit="$2" file="$3" probe="speed_$1" started
    shift 3
    case "$limit" in '' | 0 | *[!0-9]*) fail "$name: 'fit' needs the limit of its stage in seconds" ;; esac
    started="$(date +%s)"
    # shellcheck disable=SC2086
    run "$probe" 600 "$file" "$@" "train.total_iter=$PROBE" train.warmup_iter=-1 "logger.print_freq=$((PROBE / 4))" \
        logger.save_checkpoint_freq=1000000 val.val_freq=1000000 ${SET:-} ||
        fail "$name: measuring the speed failed, see $LOGS/$probe.log"
    "$PYTHON" - "$LOGS/$probe.log" "$limit" "$(($(date +%s) - started))" "$PROBE" <<'PY' | tee "$LOGS/$name.length"
import re, sys
log, limit, spent, probe = open(sys.argv[1]).read(), *map(float, sys.argv[2:])
times = [float(t) for t in re.findall(r"time \(data\): ([\d.]+)", log)][-4:]
# the log's times are means since the start; the first quarter is slow
each = (times[3] * probe - times[0] * probe / 4) / (probe * 3 / 4)
start = spent - times[3] * probe  # the run itself has to start, too
count = max(100, int((limit - spent - start) * 0.92 / each) // 100 * 100)
print(f"train.total_iter={count} train.scheduler.T_max={count}")
PY
    rm -rf "experiments/$probe"
}

base() {
    if [ -f "$BASE" ]; then say "the base is rounded already: $BASE" && return; fi
    if finished builtin_base net_g .pth; then say "builtin_base is finished" && return; fi
    # shellcheck disable=SC2086
    train builtin_base "${LIMIT_BASE:-0}" "${ITER_BASE:-}" abair_pretrain.yml $base_set
}

# the base that every later stage works with: the rounded one, made of the newest weights where there is none yet
round_base() {
    local weights
    [ -f "$BASE" ] && return
    weights="$(newest builtin_base net_g .pth)"
    [ -n "$weights" ] || fail "there is no base yet: run the stage 'base' first"
    say "rounding $weights to float16"
    "$PYTHON" "$ROOT/tools/pack_builtin.py" base "$weights" "$BASE"
}

adapter() {
    if finished "builtin_adapter_$1" adapter ""; then say "builtin_adapter_$1 is finished" && return; fi
    # shellcheck disable=SC2086
    train "builtin_adapter_$1" "${LIMIT_ADAPTERS:-0}" "${ITER_ADAPTERS:-}" "abair_adapter_$1.yml" \
        "path.pretrain_network_g=$BASE" $adapter_set
}

adapters() {
    local running=() name status=0
    for name in $ADAPTERS; do
        while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || status=1; done
        adapter "$name" &
        running+=($!)
    done
    for name in "${running[@]}"; do wait "$name" || status=1; done
    [ "$status" -eq 0 ] || fail "an adapter failed; its log is in $LOGS"
}

# overrides that name each adapter's newest folder
adapter_paths() {
    local name found
    for name in $ADAPTERS; do
        found="$(newest "builtin_adapter_$name" adapter)"
        [ -n "$found" ] || fail "there is no adapter for $name yet: run the stage 'adapters' first"
        echo "blend.adapters.$name=$found"
    done
}

estimator() {
    if finished builtin_blend net_e .pth; then say "builtin_blend is finished" && return; fi
    local paths
    paths="$(adapter_paths)"
    # shellcheck disable=SC2086
    train builtin_blend "${LIMIT_ESTIMATOR:-0}" "${ITER_ESTIMATOR:-}" abair_blend.yml \
        "path.pretrain_network_g=$BASE" $paths $estimator_set
}

test_model() {
    local paths weights
    paths="$(adapter_paths)"
    weights="$(newest builtin_blend net_e .pth)"
    [ -n "$weights" ] || fail "there is no estimator yet: run the stage 'estimator' first"
    say "test on datasets/builtin/test; log: $LOGS/test.log"
    # shellcheck disable=SC2086
    "$PYTHON" -m basicsr_plugins test -opt "$ROOT/options/builtin/test_abair.yml" --set "path.pretrain_network_g=$BASE" \
        "path.pretrain_network_e=$weights" $paths ${SET:-} >"$LOGS/test.log" 2>&1 || {
        tail -n 15 "$LOGS/test.log" >&2
        fail "the test failed"
    }
    sed -n '/All data sets:/,$p' "$LOGS/test.log"
}

BASE=experiments/builtin_base/models/base.safetensors
for stage in $STAGES; do
    [ "$stage" = base ] || round_base
    case "$stage" in
    base) base ;;
    adapters) adapters ;;
    adapter:*) adapter "${stage#adapter:}" ;;
    estimator) estimator ;;
    test) test_model ;;
    pack) "$PYTHON" "$ROOT/tools/pack_builtin.py" all experiments builtin_model ;;
    esac
done
