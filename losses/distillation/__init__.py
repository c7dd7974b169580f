"""Losses that bring a student's distribution to a teacher's."""
