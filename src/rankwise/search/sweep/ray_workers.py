"""Trials on a Ray cluster: Ray places them, tries again when a worker or a machine is lost, and streams results.

The search's folder, the data files and the model's folder must be at the same path on every machine (a shared
disk); a trial that is tried again goes on from its checkpoint there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from rankwise.errors import UserError, missing_extra
from rankwise.machine.memory import keep_freed_memory
from rankwise.search.sweep.spec import Resources
from rankwise.search.sweep.trial import Outcome, Task, carry_out
from rankwise.search.sweep.workers import RETRIES


def connect(address: str, **options: Any) -> Any:
    """The `ray` module, connected: to a cluster's address, to the one this machine belongs to (auto), or to a new
    one on this machine (local).

    Raises: UserError when Ray is not installed or the cluster is not there.
    """
    # Without it Ray sends usage data over the network.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "ray") from None
    chosen: dict[str, Any] = {"address": address, "logging_level": "ERROR", "log_to_driver": False, **options}
    if address == "local":
        chosen["include_dashboard"] = False
        # Ray lowers its workers' priority by 15, so that beside anything else they would get a thirtieth of a core.
        os.environ.setdefault("RAY_worker_niceness", "0")
    if not ray.is_initialized():
        try:
            ray.init(**chosen)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"no Ray cluster at '{address}': {reason}; 'local' starts one on this machine") from error
    return ray


_CANCEL_S = 10.0
"""seconds to wait for tasks that were cancelled"""


def _in_worker(task: Task) -> Outcome:
    """A trial in a worker's process, which is our own."""
    keep_freed_memory()
    return carry_out(task)


class RayWorkers:
    """The workers of a Ray cluster, as many as the trials' resources leave room for."""

    def __init__(self, address: str, resources: Resources) -> None:
        self._ray = connect(address)
        self.count = self._room(resources)
        # Ray gives each task OMP_NUM_THREADS by its cpus; max_retries is of lost workers, not of errors.
        self._carry_out = self._ray.remote(_in_worker).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=RETRIES, name="rankwise trial"
        )

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Outcomes as they come; a task whose worker was lost too often has failed."""
        running = {self._carry_out.remote(task): task for task in tasks}
        errors = self._ray.exceptions
        try:
            while running:
                done, _ = self._ray.wait(list(running), num_returns=1)
                task = running.pop(done[0])
                try:
                    yield self._ray.get(done[0])
                except errors.RayTaskError as error:  # it could not even begin there: rankwise is missing, say
                    reason = str(error).strip().splitlines()[-1]
                    yield Outcome(task.number, "failed", error=f"it cannot run on the cluster: {reason}")
                except errors.RayError as error:
                    yield Outcome(task.number, "failed", error=f"its worker was lost {RETRIES + 1} times: {error}")
        finally:
            # Left early, in a notebook say, where a resume must not meet them in the trials' folders.
            for future in running:
                self._ray.cancel(future, force=True)
            if running:
                self._ray.wait(list(running), num_returns=len(running), timeout=_CANCEL_S)

    def close(self) -> None:
        """The connection stays open for what comes next in this process; Ray closes it at its end."""

    def _room(self, resources: Resources) -> int:
        """Trials that the cluster runs at a time: a trial fits one machine or none."""
        room = 0
        for node in self._ray.nodes():
            offers = node["Resources"] if node["Alive"] else {}
            here = offers.get("CPU", 0) // resources.cpus
            room += int(min(here, offers.get("GPU", 0) // resources.gpus) if resources.gpus else here)
        if room < 1:
            raise UserError(
                f"no machine of the cluster has {resources.cpus:g} cpus and {resources.gpus:g} gpus: lower resources"
            )
        return room
