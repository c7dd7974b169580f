"""Reinforcement learning: the iteration, its methods, its loops."""
