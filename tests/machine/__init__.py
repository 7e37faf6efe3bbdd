"""A service and a provider of which every single step is chosen: for the state machine of a generation's life.

double   a provider that does what it is told, on a real socket, and keeps a ledger
power    what lies between a process and the world, and can be cut at any crossing
world    the service over files that outlive it: it is asked, works, is killed, and is opened again
"""
