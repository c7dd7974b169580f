"""Offline training: on pairs and on rounds of samples, with its loop."""
