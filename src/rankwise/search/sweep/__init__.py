"""The sweep that a search file describes: its space, its rounds, its trials and who runs them, and how they are judged."""
