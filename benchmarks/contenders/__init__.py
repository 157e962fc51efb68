"""The journey-step benchmark: one definition of the work, done by every contender, and its output checked."""
