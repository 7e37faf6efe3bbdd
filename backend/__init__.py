"""Reelhook: image and video generations that are never lost and never paid twice.

Read in the order of the data's way:

    web        a request comes in            steps/request   becomes a row
    worker     takes rows that are due       steps/submit    hands them to a provider
    web        a webhook comes in            steps/receive   keeps the provider's word
    worker     asks where no word came       steps/watch     polls, adopts, gives up in time
    worker     fetches what is finished      steps/collect   stores the bytes, ends the row
    worker     frees who waits for it        steps/release   queues, or fails with it, in bites
    worker     tells who listens             steps/announce  signs, sends, tries again
    web        a client looks                steps/browse    lists rows, finds files

A step never calls another: the row in `generations` is how they talk (model.py, schema.sql).
"""

__version__ = "0.1.0"
