"""The proof that a saved adapter, loaded into a fresh base, is the live model."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import torch

from rankwise import config as configuration
from rankwise.config import Config
from rankwise.inference import saved as saving
from rankwise.inference.classifier import load_classifier
from rankwise.machine.precision import precision_of
from rankwise.machine.processes import this_process
from rankwise.methods import method_of
from rankwise.models.assembly import Assembly
from rankwise.models.classifier import logits_of
from rankwise.planning.ledger import head_kind
from rankwise.planning.steps import PROVEN_ROWS
from rankwise.training import building
from rankwise.training.prepare import Job

# How far apart the logits of the reloaded adapter may be: both models do the same arithmetic on the same path, so anything
# above rounding means that something trained is not in the file.
TOLERANCE = 1e-5


def config_of(config: Config, engine: str) -> Config:
    """The configuration under which the live and the reloaded model are compared: almost always the run's own.

    Where the file holds the trained update in another form than the live model (PiSSA and OLoRA as plain LoRA, a
    low-rank head merged), the two are other sums of the same numbers. In half precision they round apart by more than
    a lost tensor of a short run would, so both are computed in fp32.
    """
    converted = method_of(config).converts(config.adapter) or head_kind(config) == "low_rank"
    if not converted or precision_of(config.model.precision, engine) == "fp32":
        return config
    return configuration.replaced(config, "model", precision="fp32")


class Live:
    """What the saved adapter has to repeat: the live model's logits on some rows.

    Where another configuration is compared (`config_of`), all that is needed of the model is what it trained: never are
    two bases in memory, the live one and the one it is proven by. Whoever makes this lets go of the model then.
    """

    def __init__(self, job: Job, assembly: Assembly, network: Any) -> None:
        self._job = job
        self._compared = config_of(job.config, job.plan.engine)
        same = self._compared is job.config
        self._logits = _logits_to_prove(job, network) if same else None
        self._trained = {} if same else {name: value.detach().clone() for name, value in assembly.trainable.items()}

    def reloaded(self) -> tuple[Any, float]:
        """The saved adapter in a fresh base, as it will answer, once it has repeated the live logits, and the largest difference.

        Raises: RuntimeError when it has not.
        """
        live = self._logits
        if live is None:
            live = self._built_anew()
            gc.collect()  # a PEFT model and its assembly know each other
        saved, job = saving.read(self._job.run.adapter), self._job

        precision, engine = self._compared.model.precision, job.plan.engine
        network = load_classifier(saved, engine=engine, precision=precision).to(this_process().device)
        difference = prove_equal(live, _logits_to_prove(job, network))
        if self._compared is not job.config or engine == "reference" != saved.engine:
            del network  # scores are of what answers: what peft alone can train, the fast engine may read
            gc.collect()
            network = load_classifier(saved).to(this_process().device)
        return network, difference

    def _built_anew(self) -> np.ndarray:
        """The logits of the trained parameters in a base of the compared configuration. Shape: (rows, classes)"""
        assembly = building.assembly_of(self._job, self._compared)
        with torch.no_grad():
            for name, value in assembly.trainable.items():
                value.copy_(self._trained[name])
        return _logits_to_prove(self._job, building.network_of(self._job, assembly, self._compared))


def _logits_to_prove(job: Job, network: Any) -> np.ndarray:
    rows = (job.validation or job.training).tokens
    sample = rows.take(range(min(PROVEN_ROWS, len(rows))))
    return logits_of(network, sample, job.config.train.eval_batch_size)


def prove_equal(live: np.ndarray, reloaded: np.ndarray) -> float:
    """The largest difference between the live and the reloaded model's logits. Shape of each: (rows, classes)

    Raises: RuntimeError when it is above rounding: the file lacks something that was trained.
    """
    difference = float(np.abs(live - reloaded).max())
    scale = max(1.0, float(np.abs(live).max()))
    if not difference <= TOLERANCE * scale:
        raise RuntimeError(
            f"the saved adapter does not repeat the live model: logits differ by {difference:.3g}; "
            "the run's checkpoint is kept, please report this"
        )
    return difference
