"""Compiling a run's steps ahead of time for accelerators that are not there."""
