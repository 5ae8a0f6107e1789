"""What result.json holds of a run, finished or not."""

from __future__ import annotations

from typing import Any

from rankwise import config as configuration
from rankwise.machine import description
from rankwise.machine.precision import precision_of
from rankwise.machine.processes import this_process
from rankwise.runs.folder import Run
from rankwise.training.loop import State
from rankwise.training.prepare import Job


def result_of(job: Job, status: str, state: State | None, total_s: float) -> dict[str, Any]:
    """The contents of result.json, apart from what only the end knows.

    total_s
        Seconds since the command began, earlier sessions included.
    """
    train_s = state.train_s if state else 0.0
    return {
        "status": status,
        "parameters": {
            "trainable": job.plan.trainable,
            "budget": job.plan.budget,
            **job.plan.groups,
            "frozen": job.plan.frozen,
            "adapter_bytes": job.plan.adapter_bytes,
        },
        "metrics": {},
        "timing": {
            "train_s": round(train_s, 3),
            "eval_s": round(state.eval_s, 3) if state else 0.0,
            "total_s": round(total_s, 3),
            "steps": state.step if state else 0,
            "examples_per_s": round(state.rows_seen / train_s, 2) if state and train_s else None,
            "tokens_per_s": round(state.tokens_seen / train_s, 1) if state and train_s else None,
        },
        "processes": this_process().num_processes,
        "memory": {"peak_mb": description.peak_mb()},
        "seed": job.config.train.seed,
        "config_hash": configuration.config_hash(job.config),
        "labels": job.label_names,
        "engine": {
            "path": job.plan.engine,
            "reason": job.plan.engine_reason,
            "precision": precision_of(job.config.model.precision, job.plan.engine),
        },
        "data": {role: {"rows": len(rows), "sha256": rows.sha256} for role, rows in job.roles.named().items()},
        "texts": job.roles.report.to_dict(),
        "environment": description.describe(),
    }


def total_s(run: Run) -> float:
    """Seconds that the sessions of a run took so far, as far as they were recorded."""
    return float(run.result["timing"]["total_s"]) if (run.path / "result.json").exists() else 0.0


def sessions(run: Run) -> list[int]:
    """The step that each session of a run so far began from."""
    return list(run.result.get("sessions", [])) if (run.path / "result.json").exists() else []


def reached(state: State) -> dict[str, Any]:
    """Where a run stands that is not finished: its step, its best evaluation so far and its last."""
    scores = [
        {name: row[f"validation_{name}"] for name in ("accuracy", "loss", "macro_f1")} | {"step": row["step"]}
        for row in state.history
    ]
    # AdaLoRA chooses no weights before its ranks are final: until then the last evaluation stands for it.
    best = [score for score in scores if score["step"] == state.selection.step] or scores[-1:]
    return {"step": state.step, "best": best[-1] if best else None, "last": scores[-1] if scores else None}
