"""The log on a Redis or Valkey server. Requires the extra ``redis``; only ``urls`` works without it.

    log                 stream: the recent part of the log (``entries``)
    state               hash: epoch, identity of the server, head, end of the snapshot (``link.State``)
    snapshot:N:TOKEN    list: the retained messages up to number N (``snapshot``)
    lease               the process that is writing a snapshot
    writer:ID           the fence of a process: its last group, and the answer to it (``writer``)
    receipts            hash: answers by Idempotency-Key, and ids of items; receipts:age, list: their keys, oldest first
    lasting             the same, of keys with a lifetime of their own; lasting:age
    presence:…          the registry of the processes (``registry``)

All keys begin with ``{PREFIX}:``. Every atomic change is a script (``scripts``).

Four rules together ensure that each acknowledged message arrives once, or that its loss is known: groups have numbers
(``writer``), entries form a chain (``entries``), connections check the server's identity (``link``), and snapshots
are verified (``snapshot``). tests/models contains each rule as a small model, with variants that fail.
"""
