#!/usr/bin/env bash
# What a transfer to this GPU is held against: its two rates, and cells of the graph executor.
# Usage: benchmarks/other_gpu.sh OUT_FOLDER; about 3.5 minutes on an H100. Then, anywhere:
#   pdvsim validate --bench OUT/cells.json --bench OUT/cell_1.json --gpu h200@copy_tb_s=...,matrix_tflops=...
set -u
out=$1
cells="--device cuda --executor graph --pair tinyllama-1.1b:llama-2-7b --architecture plain,baseline,pd,pdv --prompt-tokens 256 --output-tokens 128 --seed 11"

step() { # seconds, then a command: says how long it took; the rest goes on whatever it does
  local limit=$1 began=$SECONDS
  shift
  timeout "$limit" "$@" 2>&1 | tail -n 30
  echo "== rc ${PIPESTATUS[0]}, $((SECONDS - began)) s: $*"
}
step 60 python3 -c "
import json, sys, torch
from calibration.ceilings import measure_ceilings
found = measure_ceilings(torch.device('cuda'))
found['gpu'] = torch.cuda.get_device_name()
print(found)
json.dump(found, open(sys.argv[1], 'w'), indent=1)
" "$out/ceilings.json"
step 200 python3 -m pdvsim bench $cells --concurrency 8,32,128 --cycles 1 -o "$out/cells.json"
step 100 python3 -m pdvsim bench $cells --concurrency 1 --requests 8 -o "$out/cell_1.json"
