"""The log in a SQLite file: it survives restarts, and any number of processes of one machine share it.

    store      the store: what the event loop does, and the threads that it has
    board      who subscribes in which process; a file of its own
    worker     a thread that does one thing after the other
    start      opens the file, checks it, decides whether its epoch is still good
    files      paths, connections, the write lock, the mark
    writer     appends a group
    follower   reads what was committed
    bells      tells followers in other processes
    trimmer    deletes what need not be retained

Each file imports only files below it.
"""

from .store import SqliteStore

__all__ = ["SqliteStore"]
