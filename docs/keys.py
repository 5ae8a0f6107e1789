"""Write the page of all configuration keys from the configuration tree: `python docs/keys.py`."""

from __future__ import annotations

import json
from pathlib import Path

from rankwise import config as configuration

PAGE = Path(__file__).parent / "configuration.md"
INTRODUCTION = """# Every key

A configuration is a YAML file of these sections, a dict of the same shape, or `key=value` words on the command line,
which go over the file's. `rankwise train --help` prints the same list. A run keeps its whole configuration, resolved,
in `config.yaml`, which runs again as it is.

Made of the code by `python docs/keys.py`.
"""


def page() -> str:
    """The whole page in Markdown."""
    parts, section = [INTRODUCTION], ""
    for key, text, default in configuration.every_key():
        first = key.partition(".")[0] if "." in key else "engine, track"
        if first != section:
            section = first
            parts.append(f"\n## {section}\n\n| key | default | |\n|---|---|---|\n")
        words = configuration.choices(key)
        one_of = f"; {', '.join(f'`{word}`' for word in words)}" if len(words) > 1 else ""
        shown = json.dumps(default, ensure_ascii=False)
        parts.append(f"| `{key}` | `{shown}` | {_cell(text)}{one_of} |\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
