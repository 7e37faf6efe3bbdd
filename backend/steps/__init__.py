"""One module a step, in the data's order: request, queue, submit, receive, lost, watch, adopt, collect, release,
announce, browse.

`make` is the first step of what is made here. `change` and `retry` are what clients do to generations they have. What
several steps need is in `outcomes` (what a provider's word does to a row), `leased` (how a worker moves a row that it
holds), `deadlines` (until when a row is waited for), `outputs` (how one file is kept), `inline` (files that came inside
an answer), `references` (what becomes of an asset) and `sources` (what a new row starts from).
"""
