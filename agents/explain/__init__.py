"""Explanations: where a user's history comes from, and how what was found is told."""
