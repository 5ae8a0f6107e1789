"""The machine at hand: its device and arithmetic, its processes, its caches, its random generators, what it is.

The one place where these are asked; everything else takes the answer.
"""
