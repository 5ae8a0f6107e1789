"""The command line: one module a verb, imported only when its verb is used.

Exit codes: 0 done, 2 a user's mistake (one sentence on stderr), 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from rankwise import __version__
from rankwise.errors import UserError, nearest
from rankwise.machine.memory import keep_freed_memory

# What `rankwise --help` shows; a verb's module has its name.
VERBS = {
    "plan": "exact parameter counts, largest ranks and bytes, without weights",
    "auto": "from labelled texts to a classifier within minutes, explained",
    "train": "fine-tune under the budget and write a run's folder",
    "evaluate": "score a run on its test rows and record the look",
    "predict": "label texts from a file, in constant memory",
    "search": "sweeps, random, TPE and halving over any key, never above the budget",
    "compare": "paired tests between runs on the same rows",
    "calibrate": "fit a temperature on validation rows, kept with the adapter",
    "export": "write a run for other programs: transformers, ONNX, OpenVINO, numpy; proven there",
    "serve": "answer over HTTP with many classifiers, those of one base in shared passes",
    "share": "put an adapter on the Hub and read it back",
    "report": "one HTML file about a run or a search, with its figures",
    "adapters": "list, inspect, merge and convert adapters, Rankwise's and PEFT's",
    "recipes": "list, show or copy the shipped configurations",
    "bench": "measure speed and memory beside a peer, in one call",
    "doctor": "what this machine offers, what is missing, what to install",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    verb, *words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if verb == "--version":
        print(f"rankwise {__version__}")
        return 0
    if argv is None:  # this process is the command's own
        keep_freed_memory()
    try:
        return _run(verb, words)
    except UserError as error:
        print(f"rankwise: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rankwise: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`): nothing is wrong, and nothing may be printed at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(f"rankwise: no file can have the name {str(error.filename)[:80]}...: it is too long", file=sys.stderr)
        return 2


def _run(verb: str, words: list[str]) -> int:
    if verb not in VERBS:
        raise UserError(f"unknown verb '{verb}'{nearest(verb, VERBS) or '; the verbs are ' + ', '.join(VERBS)}")
    if verb != "bench":  # which measures a machine as it is
        wait_politely()
    # Notices of the libraries underneath to their own developers; a user of this command can do nothing about them.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|peft|torch")
    warnings.filterwarnings("ignore", module=r"peft\.|sklearn\.")
    module = import_module(f"rankwise.cli.{verb}")
    parser = argparse.ArgumentParser(
        prog=f"rankwise {verb}",
        description=module.__doc__,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    # Intermixed: overrides may stand before and after flags, `train x.yaml --out RUN train.steps=10`.
    code: int = module.run(parser.parse_intermixed_args(words))
    sys.stdout.flush()
    return code


def wait_politely() -> None:
    """Let threads sleep while they wait for one another, where other work wants the cores too.

    By default they spin, which on an idle machine makes a step 4% faster; beside one other busy process it made a step
    of two threads 1.5 to 20 times slower (LOG.md). Read by the thread library when torch loads it.
    """
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        os.environ.setdefault("KMP_BLOCKTIME", "0")


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {summary}" for verb, summary in VERBS.items())
    return (
        "Fine-tune text classifiers with low-rank adapters under a hard budget.\n\n"
        f"usage: rankwise VERB ...      (rankwise VERB --help tells more)\n\n{verbs}\n\n"
        "example:\n  rankwise plan model.name=roberta-base data.num_labels=4"
    )
