"""A trained classifier written for other programs: one file a target, each artefact proven where it will live.

`subject` is what is exported, `targets` the list of them, `command` the order of the steps, `beside` what lies next to the
weights (tokenizer, labels, a program of ten lines), `alone` the fresh process that has only the target's library.
"""
