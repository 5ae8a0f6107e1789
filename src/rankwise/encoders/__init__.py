"""Encoders: what each family is called inside and made of, one file each; read from a name or a `config.json`.

No torch and no weights are needed to count. Checking, counting, planning, the engine and the documentation ask a
family's object (`family.Family`).
"""

from rankwise.encoders.encoder import Encoder, Site, declared_pooling, encoder_of
from rankwise.encoders.families import FAMILIES
from rankwise.encoders.family import Family, Numbers, Tensor

__all__ = ["FAMILIES", "Encoder", "Family", "Numbers", "Site", "Tensor", "declared_pooling", "encoder_of"]
