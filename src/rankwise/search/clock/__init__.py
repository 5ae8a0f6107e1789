"""What the minutes of `auto` have room for: what each stage may take, how fast this machine trains, and what is planned by it."""
