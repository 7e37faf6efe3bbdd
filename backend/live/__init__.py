"""Event streams, signed links, and what clients are shown of generations and events."""
