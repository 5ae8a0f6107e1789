"""Encoders: what each family is called inside and made of, read from a name or a `config.json`; no torch, no weights."""

from rankwise.encoders.encoder import Encoder, Site, encoder_of
from rankwise.encoders.families import FAMILIES, Family, Tensor

__all__ = ["FAMILIES", "Encoder", "Family", "Site", "Tensor", "encoder_of"]
