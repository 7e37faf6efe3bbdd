"""Step 6: tell clients by webhook, at least once, each event under one id.

`sending` claims deliveries and sends them, `messages` says what is sent, `attempts` what follows from it.
"""

from backend.steps.announce.sending import claim, heed_the_clock, send

__all__ = ["claim", "heed_the_clock", "send"]
