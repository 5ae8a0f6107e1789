"""The families, in the order the documentation tells them. A family is added by its file and its line here."""

from __future__ import annotations

from collections.abc import Mapping

from rankwise.encoders.albert import ALBERT
from rankwise.encoders.bert import BERT
from rankwise.encoders.camembert import CamemBERT
from rankwise.encoders.deberta_v2 import DeBERTa
from rankwise.encoders.distilbert import DistilBERT
from rankwise.encoders.electra import ELECTRA
from rankwise.encoders.ernie import ERNIE
from rankwise.encoders.family import Family
from rankwise.encoders.modernbert import ModernBERT
from rankwise.encoders.mpnet import MPNet
from rankwise.encoders.roberta import RoBERTa
from rankwise.encoders.xlm_roberta import XLMR

_FAMILIES: tuple[Family, ...] = (
    BERT(),
    RoBERTa(),
    XLMR(),
    CamemBERT(),
    ELECTRA(),
    ERNIE(),
    MPNet(),
    DistilBERT(),
    DeBERTa(),
    ALBERT(),
    ModernBERT(),
)
FAMILIES: Mapping[str, Family] = {family.model_type: family for family in _FAMILIES}
