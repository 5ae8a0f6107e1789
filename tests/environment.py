"""What the tests set before anything reads it: numpy and torch count their threads when they are imported."""

import gc
import os
import sqlite3.dbapi2
import sys

# No test may reach for the Hub, and parallel tests must not fight over cores.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Modules are compiled once for all processes of the tests, and not in each of them, also where bytecode is not to be written.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# No test loses power, and a run of a second waits for the disk sixty times, a search's storage hundreds of times.
os.fsync = lambda _: None
_connect = sqlite3.dbapi2.connect


def _connect_in_haste(*words, **more):
    connection = _connect(*words, **more)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


sqlite3.dbapi2.connect = _connect_in_haste
# What is imported stays: nothing of it need be looked at until all is there (`conftest.py` turns it on again).
gc.disable()
