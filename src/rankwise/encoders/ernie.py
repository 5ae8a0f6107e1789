"""ERNIE 2.0 and 3.0 (Sun et al. 2020, 2021): BERT with an embedding of the pretraining task."""

from __future__ import annotations

from collections.abc import Iterator

from rankwise.encoders.bert import BERT
from rankwise.encoders.family import Dims, HFConfig, Tensor

_TASKS = "ernie.embeddings.task_type_embeddings"


class ERNIE(BERT):
    """Every text is of task 0 where the configuration tells tasks apart."""

    model_type = "ernie"
    title = "ERNIE"
    prefix = "ernie"
    layer = "ernie.encoder.layer.{}"
    dense = "ernie.pooler.dense"
    known = {}

    def extras(self, dims: Dims, config: HFConfig) -> Iterator[Tensor]:
        if config.get("use_task_id"):
            yield Tensor(f"{_TASKS}.weight", (self.number(config, "task_type_vocab_size", 3), dims.embedding))

    def constant_embeddings(self, config: HFConfig) -> tuple[str, ...]:
        own = (_TASKS,) if config.get("use_task_id") else ()
        return (*super().constant_embeddings(config), *own)
