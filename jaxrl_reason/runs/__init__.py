"""What a run leaves behind: folder, checkpoints, metrics, plots, report; knows no algorithm."""
