"""S/MIME without keys and without arguments."""
