"""Search under a budget: structured sweeps over any configuration key (`driver`, `sweep`), and `auto`.

`auto` reads what was asked (`request`), looks at the `clock`, finds what may compete (`designs`), and lets trials, `folds` or
`floors` choose (`chosen`); what its minutes have left goes to what follows (`after`).
"""
