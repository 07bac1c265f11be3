"""The card: its published rows, its cells, its Average."""
