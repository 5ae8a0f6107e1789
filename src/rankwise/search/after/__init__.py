"""What follows a choice in what the clock has left: a longer run, all rows, and what more labels and minutes would bring."""
