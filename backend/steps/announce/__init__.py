"""Step 6: clients are told by webhook, at least once, each event under one id."""

from backend.steps.announce.sending import claim, heed_the_clock, send

__all__ = ["claim", "heed_the_clock", "send"]
