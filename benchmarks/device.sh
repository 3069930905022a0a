#!/usr/bin/env bash
# Everything that `results/` and the shipped profiles hold, measured on a machine with two GPUs,
# one process and one half of the cores each, 8 to 10 minutes a part.
# Usage: benchmarks/device.sh OUT_FOLDER graph|engine|eager
set -u
export out=$1 part=$2
half=$(($(nproc) / 2))
export main=tinyllama-1.1b:llama-2-7b same=tinyllama-1.1b:tinyllama-1.1b large=tinyllama-1.1b:codellama-34b
export eager="--executor eager --pair $main --prompt-tokens 32 --output-tokens 8 --cycles 1"
export graph="--executor graph --pair $main --prompt-tokens 256 --output-tokens 128 --cycles 1"
# Prompts are prefilled as in the published systems; `baseline` prefills all its batch at once.
export published="plain@prefill_batch=1,baseline@prefill_batch=100000,pd@prefill_batch=1"
published+=",three_lane@prefill_batch=1,verify_batch=8,pdv@prefill_batch=1"

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
bench() { # seconds, name, options
  step "$1" python3 -m pdvsim bench ${@:3} --records "/tmp/records/$2" -o "$out/$2.json"
}
graph_first() {
  profile 310 $main graph
  profile 230 $large graph
}
graph_second() { # C = 8 often: three_lane settles into one of several modes there
  bench 250 graph_c8 $graph --concurrency 8 --replications 10 --architecture $published
  bench 180 graph_c32_c128 $graph --concurrency 32,128 --replications 2 --architecture $published
  bench 120 graph_c1 $graph --concurrency 1 --architecture $published
  bench 70 graph_prefill_batch_8 $graph --concurrency 128 --prefill-batch 8 --verify-batch 8
}
engine_first() {
  step 110 python3 benchmarks/engine_stages.py --quick --json "$out/stages.json"
  step 70 python3 benchmarks/engine_burst.py --quick --json "$out/burst.json"
  step 70 python3 benchmarks/engine_burst.py --pair $large --bursts 1,8 --json "$out/burst_34b.json"
}
engine_second() {
  profile 270 $same graph
  profile 120 $main eager
  profile 120 $same eager
}
eager_first() {
  bench 280 eager_bench_0 $eager --concurrency 1,4,8 --replications 2 --architecture baseline,pd
  bench 280 eager_bench_0_large $eager --concurrency 16,32,64 --architecture baseline,pd
}
eager_second() {
  bench 280 eager_bench_1 $eager --concurrency 1,4,8 --replications 2 --architecture three_lane,pdv
  bench 280 eager_bench_1_large $eager --concurrency 16,32,64 --architecture three_lane,pdv
}
export -f step profile bench ${part}_first ${part}_second
CUDA_VISIBLE_DEVICES=0 taskset -c "0-$((half - 1))" bash -c "${part}_first" >"/tmp/first.log" 2>&1 &
CUDA_VISIBLE_DEVICES=1 taskset -c "$half-$((2 * half - 1))" bash -c "${part}_second" >"/tmp/second.log" 2>&1 &
wait
tar -C /tmp -czf "$out/records.tar.gz" records
cat /tmp/first.log /tmp/second.log
