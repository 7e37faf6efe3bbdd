"""Everything the service keeps, copied aside while it runs and put back where there is nothing.

A backup is a folder: `reelhook.db`, `data.key`, `media/` as the storage has it, `manifest.json` (what is in it),
and `SHA256SUMS`, which `sha256sum -c` understands and which covers all the others.
"""
