"""The log in a SQLite file: it survives restarts, and any number of processes of one machine share it.

    store      the store: what the event loop does, and the threads that it has
    board      who subscribes in which process; a file of its own
    trimmer    deletes what need not be retained
    follower   reads what was committed
    writer     appends a group
    start      opens the file, checks it, decides whether its epoch is still good
    files      paths, connections, the write lock, the mark
    bells      tells followers in other processes
    worker     a thread that does one thing after the other

Each file imports only files below it.
"""

from .store import SqliteStore

__all__ = ["SqliteStore"]
