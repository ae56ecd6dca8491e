"""Lines to come."""
