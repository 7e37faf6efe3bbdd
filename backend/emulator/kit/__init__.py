"""What every emulated provider is built from; it knows none of them.

provider    a provider's description       app         the application made of one
server      the process                    control     the routes for tests and developers
options     what can be set                keys        who may call the provider's routes
orders      what a create asks for         creates     it becomes a run, or a fault strikes
runs        what was accepted              life        a run from its start to its end
rendering   its file is made, by render/   inputs      from pictures that are referenced
reads       runs are asked about, listed   outputs     their files are fetched
webhooks    their creators are told        uploads     references come in
faults      what goes wrong on purpose     kinds       every kind of that
spoiling    downloads that go wrong        connection  a request's connection, broken on purpose
ledger      what was asked, for the tests  refusals    why a request is refused
"""
