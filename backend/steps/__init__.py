"""One module a step, in the data's order: request, submit, receive, watch, collect, release, announce, browse.

`change` and `retry` are what clients do to generations they have. What several steps need is in `outcomes` (what a
provider's word does to a row), `outputs` (how one file is kept) and `references` (what becomes of an asset).
"""
