"""The outputs of a run: folder, checkpoints, metrics, plots, report. No algorithms."""
