"""Replicate's HTTP API (https://api.replicate.com/openapi.json, version 1.0.0-a1, read 2026-11-21)."""
