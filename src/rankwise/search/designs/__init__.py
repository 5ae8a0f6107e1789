"""What `auto` lets compete: bases, ends of long texts, where adapters sit, how fast they learn and how the head starts."""
