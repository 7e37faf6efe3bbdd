"""Replicate's wire protocol."""
