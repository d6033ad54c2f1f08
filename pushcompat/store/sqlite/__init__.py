"""The log in a SQLite file: it survives restarts, and any number of processes of one machine share it.

    store      the store: its part in the event loop, and its threads
    registry      exchanges subscriber counts; a separate file
    trimmer    deletes messages that need not be retained
    follower   reads committed messages
    writer     appends a group
    start      opens the file, checks it, decides whether its epoch is still valid
    files      paths, connections, the write lock, the mark
    bells      notifies followers in other processes
    thread     a thread that executes calls in order

Each file imports only files below it.
"""

from .store import SqliteStore

__all__ = ["SqliteStore"]
