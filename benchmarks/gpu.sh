#!/usr/bin/env bash
# Rankwise on this machine's GPU: what must hold there is checked, and speed and memory are measured beside transformers and
# peft. At most ten minutes. In a notebook with a GPU, from a checkout:
#   !pip install --quiet . datasets
#   !bash benchmarks/gpu.sh
# Results are written as JSON into OUT, benchmarks/results/gpu by default; the exit code is 1 if anything failed.
#   benchmarks/gpu.sh [OUT] [--data FILE] [--quick]
# FILE is a CSV or Parquet file with the columns text and label; without one texts of AG News' lengths are made up.
# --quick makes everything tiny; so does a machine without a GPU.
set -euo pipefail
export TOKENIZERS_PARALLELISM=false
exec "${PYTHON:-python}" "$(dirname "$0")/gpu.py" "$@"
