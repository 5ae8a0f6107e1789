"""What `auto` solves at once, without a step: TF-IDF and heads on frozen features, alone and beside an encoder."""
