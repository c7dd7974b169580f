"""Answer extraction and graders; nothing that a model wrote is ever executed."""
