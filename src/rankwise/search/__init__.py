"""Search under a budget: structured sweeps over any configuration key, and `auto`."""
