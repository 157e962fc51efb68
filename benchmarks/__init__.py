"""What is measured, against whom, with a check that the measured work was really done. README.md keeps the numbers."""
