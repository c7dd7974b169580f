"""Reinforcement learning: the iteration, the methods and the training loops."""
