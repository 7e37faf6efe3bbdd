"""Pure facts and rules: no I/O, no clock. Everything may import it, and it imports nothing else of ours."""
