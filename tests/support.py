"""What tests of several folders make: labelled sentences and files of them."""

import csv
import random
from pathlib import Path

TOPICS = {
    "sport": ["match", "goal", "team", "coach", "league", "striker"],
    "business": ["shares", "bank", "profit", "market", "merger", "investor"],
    "science": ["planet", "cell", "telescope", "enzyme", "theory", "orbit"],
}
COMMON = ["the", "a", "of", "on", "after", "said", "new", "with", "will", "and", "in", "."]


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """(text, topic) pairs that a two-layer model can learn."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        topic = list(TOPICS)[number % len(TOPICS)]
        words = chance.choices(COMMON, k=chance.randint(3, 12)) + chance.choices(TOPICS[topic], k=3)
        chance.shuffle(words)
        made.append((" ".join(words), topic))
    return made


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A CSV with columns text and label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        table.writerows(rows)
    return path
