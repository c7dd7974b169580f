"""Tasks: problems, prompts and grades."""
