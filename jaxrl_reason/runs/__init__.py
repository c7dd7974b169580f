"""What a run leaves: folder, checkpoints, metrics, plots, report. No algorithms."""
