"""Write what the pages say of the code itself, keys, methods and encoders: `python docs/keys.py`."""

from __future__ import annotations

import json
from pathlib import Path

from rankwise import config as configuration
from rankwise.encoders import FAMILIES
from rankwise.methods import METHODS

PAGE = Path(__file__).parent / "configuration.md"
TECHNIQUES = Path(__file__).parent / "techniques.md"
BUDGET = Path(__file__).parent / "budget.md"
INTRODUCTION = """# Every key

A configuration is a YAML file of these sections, a dict of the same shape, or `key=value` words on the command line,
which go over the file's. `rankwise train --help` prints the same list. A run keeps its whole configuration, resolved,
in `config.yaml`, which runs again as it is, and which ends with `...`: without them it was cut short, and is refused.

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


def methods() -> str:
    """The table of methods in Markdown."""
    rows = [f"| `{name}` | {method.summary} | {'yes' if method.fast else ''} |" for name, method in METHODS.items()]
    return "\n".join(["| method | what trains beside the head | fast engine |", "|---|---|---|", *rows])


def encoders() -> str:
    """The table of families in Markdown; what the engine says of a family is of its usual configuration."""
    rows = [
        f"| {family.title} | `{name}` | {'yes' if family.why_not_fast(next(iter(family.known.values()), {})) is None else ''} "
        f"| {'yes' if family.prefixable else ''} | {', '.join(f'`{known}`' for known in family.known)} |"
        for name, family in FAMILIES.items()
    ]
    return "\n".join(["| | `model_type` | fast engine | prefix | known by name |", "|---|---|---|---|---|", *rows])


def with_block(text: str, name: str, content: str) -> str:
    """A page with what stands between `<!-- name -->` and `<!-- /name -->` replaced."""
    before, _, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not end:
        raise ValueError(f"the page has no block '{name}'")
    return f"{before}<!-- {name} -->\n{content}\n{end}{after}"


def pages() -> dict[Path, str]:
    """Every page that is made of the code, whole or in part."""
    blocks = ((TECHNIQUES, "methods", methods()), (BUDGET, "encoders", encoders()))
    return {PAGE: page()} | {path: with_block(path.read_text("utf-8"), name, made) for path, name, made in blocks}


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8")
