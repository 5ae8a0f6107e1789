"""What is written beside models and read again later, by this version and by others: typed, versioned, read leniently."""

from rankwise.records.adapter import AdapterRecord, Trained
from rankwise.records.history import HistoryRow
from rankwise.records.record import Record, read, write
from rankwise.records.result import Calibration, Decision, Floor, LastScores, Latency, Metrics, Result, Scores
from rankwise.records.search import AutoRecord, SearchRecord, SearchRow, TrialRecord, Winner

__all__ = [
    "AdapterRecord",
    "AutoRecord",
    "Calibration",
    "Decision",
    "Floor",
    "HistoryRow",
    "LastScores",
    "Latency",
    "Metrics",
    "Record",
    "Result",
    "Scores",
    "SearchRecord",
    "SearchRow",
    "Trained",
    "TrialRecord",
    "Winner",
    "read",
    "write",
]
