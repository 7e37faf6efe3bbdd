"""Python imports this first in a service under test: where TOY_ORIGIN is set, it offers the toy provider there."""

from __future__ import annotations

import os

if "TOY_ORIGIN" in os.environ:
    from toy_offered import offer

    offer(setattr, os.environ["TOY_ORIGIN"])
