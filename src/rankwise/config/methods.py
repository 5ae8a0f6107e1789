"""What kinds of adapter methods there are: which keys and which code concern a method follows from its kinds."""

from __future__ import annotations

SCALED = ("lora", "adalora")
"""methods whose update is multiplied by alpha over the rank"""
RANKED = (*SCALED, "vera")
"""methods that a rank sizes"""
SITED = (*RANKED, "ia3")
"""methods that sit on the sites of a scope"""
PROMPTING = ("prompt", "prefix")
"""methods that add trained tokens, or keys and values, in front of a text"""
MUTATING = ("pissa", "olora")
"""initialisations that change the frozen weight, so that the saved update is of twice the rank"""
