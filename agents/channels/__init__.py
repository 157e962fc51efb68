"""How messages leave, and how what became of them comes back."""
