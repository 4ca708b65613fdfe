#!/usr/bin/env bash
# From a clean clone to a small result: install, photographs, DCPT pre-training, fine-tuning with and without it, a table.
#   bash tools/quickstart.sh [FOLDER]      default folder: quickstart/ in the clone; a second run goes on where it was
set -euo pipefail
# shellcheck source=tools/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment demo

WORK="${1:-$ROOT/quickstart}"
mkdir -p "$WORK"
cd "$WORK"
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-0}"
run() { basicsr-plugins "$@" > last_run.log 2>&1 || { tail -n 20 last_run.log; fail "basicsr-plugins $* (the whole log: $WORK/last_run.log)"; }; }
# shellcheck disable=SC2086 # QUICKSTART_SET holds several overrides: the test suite shortens the runs with it
train() { run train -opt "$1" --auto_resume --set manual_seed=0 "${@:2}" ${QUICKSTART_SET:-}; }
finished() { [ -f "experiments/$1/models/net_g_latest.pth" ]; }

say "writing photographs and option files to $WORK"
basicsr-plugins demo-data datasets/demo
basicsr-plugins init .

finished demo_dcpt_nafnet || { say "DCPT pre-training (a few minutes on a CPU)"; train options/demo/dcpt_nafnet.yml; }
finished demo_finetune_nafnet || { say "fine-tuning from DCPT"; train options/demo/finetune_nafnet.yml; }
finished demo_scratch_nafnet || {
    say "fine-tuning from scratch, same budget"
    train options/demo/finetune_nafnet.yml name=demo_scratch_nafnet path.pretrain_network_g=null
}
say "testing on photographs that were not trained on"
for which in finetune scratch; do
    rm -rf "results/demo_test_$which"
    run test -opt options/demo/test_nafnet.yml --set "name=demo_test_$which" \
        "path.pretrain_network_g=experiments/demo_${which}_nafnet/models/net_g_latest.pth"
done
python "$ROOT/tools/quickstart_report.py" .
