"""Small helpers that more than one room of the package needs."""
