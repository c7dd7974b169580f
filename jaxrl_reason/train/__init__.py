"""Training runs, for any model, task and method."""
