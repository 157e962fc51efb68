"""What runs: one file or folder for each running thing."""
