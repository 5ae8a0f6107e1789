"""Search under a budget: structured sweeps over any configuration key (`driver`, `sweep`), and `auto`.

`auto` looks at the clock, solves floors at once, and has designs chosen by folds or by rows held out (`chosen_by_folds`,
`chosen_by_trials`, and what follows the trials in `after_trials`).
"""
