"""XLM-R (Conneau et al. 2020): RoBERTa in a hundred languages."""

from __future__ import annotations

from rankwise.encoders.roberta import RoBERTa, roberta_shape


class XLMR(RoBERTa):
    """RoBERTa under another name."""

    model_type = "xlm-roberta"
    title = "XLM-R"
    known = {"FacebookAI/xlm-roberta-base": roberta_shape("xlm-roberta", 768, 12, 12, 250002)}
