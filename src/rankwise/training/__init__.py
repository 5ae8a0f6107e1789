"""Training: one visible loop (`loop.py`) and the parts it names."""
