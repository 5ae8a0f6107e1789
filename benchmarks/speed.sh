#!/usr/bin/env bash
# The measurements of the speed table, about twenty minutes on an otherwise idle machine:
#   benchmarks/speed.sh ROWS.parquet ROBERTA_BASE_FOLDER
# The first is any file with the columns text and label, the second a folder with RoBERTa's config.json and tokenizer.
set -euo pipefail
rows=$1
base=(--model "$2" --random-weights)
rankwise bench train --data "$rows" "${base[@]}" --steps 5 --rounds 6 --name train-roberta-base-lora-r8
rankwise bench train --data "$rows" --model packaged:all-MiniLM-L6-v2 --steps 10 --rounds 6 --warmup 10 --name train-minilm-lora-r8
rankwise bench train --data "$rows" "${base[@]}" --rank 4 --dora --steps 5 --rounds 5 --variants papers,bf16-grouped,engine,engine-compiled --name train-roberta-base-dora-r4
rankwise bench train --data "$rows" "${base[@]}" --layers 8-11 --steps 5 --rounds 5 --variants papers,papers-all-layers,bf16-grouped,engine,engine-cached --name train-roberta-base-top4-cached
rankwise bench predict --data "$rows" --model packaged:all-MiniLM-L6-v2 --batch-size 32 --steps 8 --rounds 4 --name predict-minilm
