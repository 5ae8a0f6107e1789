"""What the minutes of `auto` have room for: how fast this machine trains, what is planned by it, and what is done with what is left."""
