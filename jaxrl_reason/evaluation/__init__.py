"""Benchmarks: records of every response, statistics with intervals, a report."""
