"""Models that score responses and steps."""
