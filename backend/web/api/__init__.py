"""The JSON routes, one file a noun: each parses, calls one step, and renders."""
