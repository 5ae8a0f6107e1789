#!/usr/bin/env bash
# The measurements of the speed tables, about twenty minutes on an otherwise idle machine:
#   benchmarks/speed.sh ROWS.parquet ROBERTA_BASE_FOLDER
# The first is any file with the columns text and label, the second a folder with RoBERTa's config.json and tokenizer.
# Where the processor has no instructions for bf16 the bf16 peers would only be slower, so fp32 ones stand for them.
set -euo pipefail
rows=$1
base=(--model "$2" --random-weights)
if rankwise doctor | grep -q '^bf16 *yes'; then
    suffix= peer=bf16-grouped
    all=papers,bf16,bf16-grouped,engine,engine-torch,products,products-torch
    predictors=papers,sorted,bf16-sorted,engine
else
    suffix=-no-bf16 peer=grouped
    all=papers,grouped,engine,products,products-torch
    predictors=papers,sorted,engine
fi
rankwise bench train --data "$rows" "${base[@]}" --steps 4 --rounds 4 --warmup 4 --variants "$all" --name "train-roberta-base-lora-r8$suffix"
rankwise bench train --data "$rows" --model packaged:all-MiniLM-L6-v2 --steps 8 --rounds 4 --warmup 6 --variants "$all" --name "train-minilm-lora-r8$suffix"
rankwise bench train --data "$rows" "${base[@]}" --rank 4 --dora --steps 4 --rounds 4 --warmup 4 --variants "papers,$peer,engine" --name "train-roberta-base-dora-r4$suffix"
rankwise bench train --data "$rows" "${base[@]}" --layers 8-11 --steps 4 --rounds 4 --warmup 4 --variants "papers,papers-all-layers,$peer,engine,engine-cached" --name "train-roberta-base-top4-cached$suffix"
rankwise bench predict --data "$rows" --model packaged:all-MiniLM-L6-v2 --batch-size 32 --steps 6 --rounds 4 --variants "$predictors" --name "predict-minilm$suffix"
