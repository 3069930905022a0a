#!/usr/bin/env bash
# Everything that `results/` and the shipped profiles hold, measured on a machine with two GPUs,
# one process and one half of the cores each. Usage: benchmarks/device.sh OUT_FOLDER
set -u
export out=$1
half=$(($(nproc) / 2))
export main=tinyllama-1.1b:llama-2-7b same=tinyllama-1.1b:tinyllama-1.1b large=tinyllama-1.1b:codellama-34b
export eager="--executor eager --pair $main --prompt-tokens 32 --output-tokens 8 --cycles 1"
export graph="--executor graph --prompt-tokens 256 --output-tokens 128 --cycles 1"

step() { # seconds, then a command: says how long it took
  local limit=$1 began=$SECONDS
  shift
  timeout "$limit" "$@" >"/tmp/step.$$" 2>&1
  local rc=$?
  tail -n 25 "/tmp/step.$$"
  echo "== rc $rc, $((SECONDS - began)) s: $*"
}
profile() { # seconds, pair, executor
  step "$1" python3 -m pdvsim calibrate --pair "$2" --executor "$3" -o "$out/h100_${2/:/_}_$3.json"
}
first() {
  export CUDA_VISIBLE_DEVICES=0
  profile 120 $main eager
  step 200 python3 -m pdvsim bench $eager --concurrency 1,4,8 --replications 2 \
    --architecture baseline,pd --records /tmp/records -o "$out/eager_bench_0.json"
  profile 170 $main graph
  profile 90 $same eager
  profile 90 $same graph
}
second() {
  export CUDA_VISIBLE_DEVICES=1
  step 200 python3 -m pdvsim bench $eager --concurrency 1,4,8 --replications 2 \
    --architecture three_lane,pdv --records /tmp/records -o "$out/eager_bench_1.json"
  step 230 python3 -m pdvsim bench $graph --pair $main --concurrency 1,8,32,128 \
    --records /tmp/records -o "$out/graph_bench.json"
  profile 120 $large graph
  step 60 python3 benchmarks/engine_burst.py --pair $large --bursts 1,8 --json "$out/burst_34b.json"
}
export -f step profile first second
taskset -c "0-$((half - 1))" bash -c first >"/tmp/first.log" 2>&1 &
taskset -c "$half-$((2 * half - 1))" bash -c second >"/tmp/second.log" 2>&1 &
wait
cat /tmp/first.log /tmp/second.log
