"""Distilling a teacher into a student: recipes, losses, hints, the training loop."""
