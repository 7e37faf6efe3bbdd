"""Reelhook: image and video generations that are never lost and never paid twice.

Read in the order of the data's way:

    web        a request comes in            steps/request   becomes a row
    worker     takes rows that are due       steps/queue     gives each client its turn
    worker     sends what was taken          steps/submit    hands it to a provider, once
    web        a webhook comes in            steps/receive   keeps the provider's word
    worker     asks where no word came       steps/watch     polls, gives up in time
    worker     seeks what it knows no id of  steps/adopt     finds it in the provider's list
    worker     fetches what is finished      steps/collect   stores the bytes, ends the row
    worker     frees who waits for it        steps/release   queues, or fails with it, in bites
    worker     tells who listens             steps/announce  signs, sends, tries again
    web        a client looks                steps/browse    lists rows, finds files

A step never calls another: the row in `generations` is how they talk (core/generation.py, schema.sql).

The rooms, from top to bottom; imports point down (tests/test_layers.py):

    app worker context config logs  the five modules everybody looks for
    cli        the commands, and `doctor`
    backup     a copy of everything, and back
    web        routes (every URL on one page), server (protocol, middleware), api (/api/v2), openai (/v1), mcp (/mcp),
               calls (one operation: body, answer, documentation), callers (keys, addresses, limits)
    upkeep     what follows a start and a restore, the sweeper, readiness
    steps      the way of a generation; what steps share: outcomes, leased, deadlines, outputs, inline,
               references
    manage     clients, keys, assets, webhook endpoints, usage, storage quotas, access, idempotency
    live       event streams, signed links, what clients are shown
    providers  what a provider must do, and a folder for each; the catalog from their models.toml
    emulator   providers' wire protocols on this machine: the kit, and a folder for each
    db         all SQL, one module a table or a question; the schema's migrations
    storage    the spool and the store of files; http: every connection out; media: what a file is, and the cage for it
    disk       durable writes, room, faults, the key file
    core       pure: generations, people, webhooks, events, errors, ids, requests, billing, formats, and the catalog
               with its nouns: models, inputs, roles, prices
"""

__version__ = "0.1.0"
