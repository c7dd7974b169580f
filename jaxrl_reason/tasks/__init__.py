"""Tasks: problems, prompts and verdicts."""
