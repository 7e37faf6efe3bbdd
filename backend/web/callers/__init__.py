"""Who calls, from where, and how often."""
