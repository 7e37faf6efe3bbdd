"""Step 1: a request becomes a row, queued or waiting for its source."""

from backend.steps.request.admission import accept, ensure_room
from backend.steps.request.rows import choose_model, start_image_model

__all__ = ["accept", "choose_model", "ensure_room", "start_image_model"]
