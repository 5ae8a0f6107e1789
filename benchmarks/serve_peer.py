"""The peer of serve_load.py: FastAPI with a `transformers` pipeline for each classifier, as tutorials have it.

python benchmarks/serve_peer.py FOLDER_OF_MERGED_MODELS --port 8001
"""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline


class Asked(BaseModel):
    """Texts for one model."""

    texts: list[str]
    model: str


def main() -> None:
    """Load all models and serve them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8001)
    args = parser.parse_args()
    models = {
        path.name: pipeline("text-classification", str(path), top_k=None) for path in sorted(args.folder.iterdir())
    }
    app = FastAPI()

    @app.post("/v1/classify")
    def classify(asked: Asked) -> dict[str, object]:
        rows = models[asked.model](asked.texts, truncation=True)
        shares = [{row["label"]: row["score"] for row in one} for one in rows]
        answers = [{"labels": [max(one, key=one.get)], "probabilities": one} for one in shares]
        return {"results": {asked.model: answers}}

    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
