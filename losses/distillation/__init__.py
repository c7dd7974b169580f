"""Losses that move a student's distribution towards a teacher's."""
