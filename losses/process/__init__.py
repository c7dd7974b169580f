"""Rewards and losses of the steps and tokens of a response."""
