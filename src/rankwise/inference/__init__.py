"""One way in: a run's folder, a search's or a PEFT adapter's, read once; all that scores or answers takes what was read.

`saved.read` reads it, `classifier.load_classifier` makes the network of it, `predictor.load` answers with that.
"""
