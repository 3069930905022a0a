#!/usr/bin/env bash
# Calibrates the eager executor and runs its closed-loop cells on a machine with two GPUs, one
# process and one half of the cores each. Usage: benchmarks/eager_device.sh OUT_FOLDER
set -u
out=$1
half=$(($(nproc) / 2))
lscpu | grep -E "Model name|Thread|Socket|NUMA"
pdvsim() { python3 -m pdvsim "$@"; }
cells="--executor eager --pair tinyllama-1.1b:llama-2-7b --concurrency 1,4,8,16,32,64 \
  --prompt-tokens 32 --output-tokens 8 --cycles 1"

side() { # GPU, pair to calibrate, architectures to run
  export CUDA_VISIBLE_DEVICES=$1
  pdvsim calibrate --pair "$2" -o "$out/h100_${2/:/_}_eager.json" || return
  timeout 430 python3 -m pdvsim bench $cells --architecture "$3" \
    --records "/tmp/records" -o "$out/h100_eager_bench_$1.json" || echo "bench $3: rc $?"
}
export -f side pdvsim
export out cells
taskset -c "0-$((half - 1))" bash -c "side 0 tinyllama-1.1b:llama-2-7b baseline,pd" &
taskset -c "$half-$((2 * half - 1))" bash -c "side 1 tinyllama-1.1b:tinyllama-1.1b three_lane,pdv" &
wait
tar -C /tmp -czf "$out/h100_eager_records.tar.gz" records
