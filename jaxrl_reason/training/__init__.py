"""State, update, loops and methods; what a run measures and leaves behind."""
