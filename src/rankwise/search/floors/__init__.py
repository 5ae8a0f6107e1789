"""What `auto` solves at once, without a step: TF-IDF and heads on frozen features, alone, beside an encoder, and on all rows."""
