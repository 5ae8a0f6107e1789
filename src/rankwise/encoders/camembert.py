"""CamemBERT (Martin et al. 2020): RoBERTa in French."""

from __future__ import annotations

from rankwise.encoders.roberta import RoBERTa, roberta_shape


class CamemBERT(RoBERTa):
    """RoBERTa under another name."""

    model_type = "camembert"
    title = "CamemBERT"
    known = {"almanach/camembert-base": roberta_shape("camembert", 768, 12, 12, 32005)}
