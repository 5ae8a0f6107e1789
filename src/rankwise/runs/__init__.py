"""A run's folder: writing it, reading it, and predicting with it."""
