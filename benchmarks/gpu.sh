#!/usr/bin/env bash
# All that a GPU can answer, in some seven minutes (an estimate): whether its own ways give the same numbers, how fast
# they are beside the published procedure, and what its number formats cost in AUROC.
#
#   bash benchmarks/gpu.sh DIR [CHECKOUT]
#
# DIR holds MVTec AD with bottle, screw and transistor; CHECKOUT is the public DifferNet repository. Tables
# go to benchmarks/out.
set -euo pipefail

data=${1-}/mvtec_ad
[[ -d $data ]] || data=${1-}/mvtec_anomaly_detection  # what its archive unpacks to
if [[ ! -d $data ]]; then
    echo "error: give the folder that holds mvtec_anomaly_detection: bash benchmarks/gpu.sh DIR [CHECKOUT]" >&2
    exit 2
fi
data=$(realpath "$data")
published=(${2:+--published "$(realpath "$2")"})
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tests=0
python -m pytest -q -m gpu tests/test_{explain,gpu_layers,pixels,precision,replay}.py || tests=$?
# Four steps an epoch: in the last epoch all of them are played.
throughput=(python benchmarks/throughput.py --device cuda --data "$data/bottle")
throughput+=(--train-images 96 --epochs 4)
"${throughput[@]}" --test-images 20 --precision tf32 fp16 bf16 fp32 "${published[@]}" \
    --out benchmarks/out/gpu.csv
"${throughput[@]}" --attention se --test-images 4 --precision tf32 --out benchmarks/out/gpu_se.csv
for category in screw bottle transistor; do
    python benchmarks/rounding.py --device cuda --native --data "$data/$category" \
        --out "benchmarks/out/gpu_$category.csv"
done
exit "$tests"
