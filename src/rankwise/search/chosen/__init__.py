"""Who chooses what `auto` ships: trials on rows held out, folds, or floors alone; each writes the record of it."""
