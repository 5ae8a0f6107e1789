"""Planning: exact counts, largest ranks and file sizes from a configuration alone; no torch, no weights."""

from rankwise.encoders import Encoder, Site, encoder_of
from rankwise.methods.places import Place
from rankwise.planning.options import options, table
from rankwise.planning.plan import plan, require_fit, with_pooling
from rankwise.planning.planned import Plan

__all__ = ["Encoder", "Place", "Plan", "Site", "encoder_of", "options", "plan", "require_fit", "table", "with_pooling"]
