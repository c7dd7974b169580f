"""Offline training: pairs, rounds of samples, the loop around them."""
