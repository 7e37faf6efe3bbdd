"""Every way a crash can spoil the work, each as a case that provokes exactly it.

case     what a case is, and the register of all     scene    one run of one: a provider, a service, kills
strace   faults at the n-th system call              power    a disk that forgets what was not synced
trap     the service kills itself at a named place     seam     what Python loads first in it, for that
stories: accept, submit, hear, collect, fetch, disk, outage, birth, machine ... (by what they spoil)
play     run the cases, count what they found, print the table
"""
