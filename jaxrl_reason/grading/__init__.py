"""Answer extraction and graders; nothing a model wrote is ever run."""
