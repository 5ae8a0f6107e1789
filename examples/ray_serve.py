"""Many classifiers on one base, as many replicas as the traffic asks for: `python examples/ray_serve.py runs/mine runs/other`.

Needs ray[serve]. For one machine `rankwise serve` is simpler, and faster. Each replica loads all classifiers over one base and
computes the requests that come at once in one pass, whichever classifier they ask for.

    curl -d '{"text": "The bank reported a loss.", "model": "mine"}' localhost:8000/
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from typing import Any

from ray import serve

import rankwise
from rankwise.inference.many import name_of


@serve.deployment(
    ray_actor_options={"num_cpus": 1},
    max_ongoing_requests=128,
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 64},
)
class Classifiers:
    """One replica."""

    def __init__(self, runs: dict[str, str]) -> None:
        self.many = rankwise.load_many(runs, threads=1)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def classify(self, asked: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """Texts and the classifier of each, as they came together."""
        rows = self.many.mixed([text for text, _ in asked], [name for _, name in asked])
        answers = []
        for (_, name), logits in zip(asked, rows, strict=True):
            loaded = self.many.get(name)
            probabilities = loaded.probabilities(logits[None])
            shares = dict(zip(loaded.label_names, map(float, probabilities[0]), strict=True))
            answers.append({"label": loaded.names_of(probabilities)[0], "probabilities": shares})
        return answers

    async def __call__(self, request: Any) -> Any:
        """{"text": TEXT, "model": NAME} -> {"label": LABEL, "probabilities": {...}}"""
        body = await request.json()
        if body.get("model") not in self.many.names:
            return {"error": f"there are {', '.join(self.many.names)}"}
        return await self.classify((str(body["text"]), body["model"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="runs or adapters; each node must see them under these paths")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--once", metavar="TEXT", help="ask every classifier about one text, print, and end")
    args = parser.parse_args()
    runs = {name_of(path): path for path in args.runs}
    serve.start(http_options={"port": args.port})
    serve.run(Classifiers.bind(runs), blocking=args.once is None)
    for name in runs if args.once else ():
        body = json.dumps({"text": args.once, "model": name}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{args.port}/", body) as answer:
            print(name, json.loads(answer.read())["label"])
    serve.shutdown()


if __name__ == "__main__":
    main()
