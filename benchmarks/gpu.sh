#!/usr/bin/env bash
# What a GPU does with adapters, in under ten minutes, as one Markdown page.
#
#   bash benchmarks/gpu.sh gpu.md           on a machine with CUDA
#   bash benchmarks/gpu.sh page.md --dry    the same commands at tiny sizes on a CPU
#
# Adapter steps of S, B and L in float32, bfloat16 and compiled; many adapters in one batch;
# predict.py beside transformers.pipeline; memory is in the tables. Every part has a limit
# of time and says so if it was cut off.
set -uo pipefail
cd "$(dirname "$0")/.."
page=${1:?a name for the page, such as gpu.md}
device=cuda steps="S B L" size=392x518 rounds=12 model=S batch=32 adapters="1 4 8 32"
images=400 input="266 266" limit=150
compiled="lava lora dora peft-lora"
if [ "${2:-}" = --dry ]; then
    device=cpu steps=tiny size=28x42 rounds=2 model=tiny batch=4 adapters="1 4"
    images=4 input="28 42" compiled=lava
elif ! python -c "import torch; raise SystemExit(not torch.cuda.is_available())"; then
    echo "error: there is no CUDA device; --dry runs the commands on a CPU" >&2
    exit 1
fi
part=$(mktemp)
# A program that was cut off while it was compiled would be found again, and not open.
TORCHINDUCTOR_CACHE_DIR=$(mktemp -d)
export TORCHINDUCTOR_CACHE_DIR
trap 'rm -rf "$part" "$TORCHINDUCTOR_CACHE_DIR"' EXIT

section() { # title, command
    local title=$1
    shift
    {
        echo "## $title"
        echo
        echo '```text'
        echo "$ $*"
        timeout "$limit" "$@" 2>&1
        local code=$?
        [ $code -eq 124 ] && echo "(cut off after $limit s)"
        [ $code -ne 0 ] && [ $code -ne 124 ] && echo "(failed: $code)"
        echo '```'
        echo
    } >>"$part"
}

{
    echo "# Measured on $(date -u +%F)"
    echo
    [ "$device" = cpu ] && echo "A dry run on a CPU: no number here means anything." && echo
    [ "$device" = cuda ] && nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
    python train.py --version
    echo
} >"$part"
# shellcheck disable=SC2086  # several words each
{
    common="--device $device --what network --size $size --rounds $rounds"
    step="python -m benchmarks.adapter_step $common"
    section "Adapter steps, float32" $step --model $steps
    section "Adapter steps, bfloat16" $step --model $steps --dtype bf16
    section "Adapter steps, bfloat16, compiled" $step --model ${steps%% *} --dtype bf16 --compile \
        --only $compiled
    section "Many adapters" python -m benchmarks.many_adapters --device $device \
        --model $model --batch $batch --size $size --methods Lava LoRA \
        --adapters $adapters --rounds 3 --beside loop
    section "Prediction" python -m benchmarks.predict_folder --device $device \
        --network $model --size $input --images $images --rounds 1
}
cp "$part" "$page"
grep -c '^(failed' "$page" | sed 's/^/parts that failed: /'
! grep -q '^(failed' "$page"
