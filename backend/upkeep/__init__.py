"""What keeps a running service healthy: sweeping, readiness, and what follows a restore."""
