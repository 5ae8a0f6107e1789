"""Choosing where no rows are held out: contenders answer for every row by cross-validation, and the chosen one is fitted on all rows."""
