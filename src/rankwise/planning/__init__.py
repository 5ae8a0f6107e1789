"""Planning: exact counts, largest ranks and file sizes from a configuration alone; no torch, no weights."""

from rankwise.planning.encoder import Encoder, Site, encoder_of
from rankwise.planning.places import Place
from rankwise.planning.plan import Plan, plan, require_fit
from rankwise.planning.show import options, table

__all__ = ["Encoder", "Place", "Plan", "Site", "encoder_of", "options", "plan", "require_fit", "table"]
