"""What every emulated provider is built from."""
