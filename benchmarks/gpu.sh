#!/usr/bin/env bash
# Every benchmark of one GPU in one call of at most nine minutes: gpu.sh [options of python -m benchmarks.gpu]
# Needs torch, triton and numpy in PYTHON (python3); nothing is installed. The figures go to OUT, or benchmarks/results.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -z "${OUT:-}" ] || export BENCH_RESULTS=$OUT
cd "$root"
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
