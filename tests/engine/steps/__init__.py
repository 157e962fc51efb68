"""Stories of every kind of step."""
