"""The log on a Redis or Valkey server. Needs the extra ``redis``; ``urls`` alone does not.

    log                 stream: the recent part of the log (``entries``)
    state               hash: epoch, identity of the server, head, where the snapshot ends (``link.State``)
    snapshot:N:TOKEN    list: what is retained of the part up to number N (``snapshot``)
    lease               who makes a snapshot now
    writer:ID           the fence of one process: its last group, and the answer to it (``writer``)
    receipts            hash: answers by Idempotency-Key; receipts:age, list: its keys, oldest first

All of them begin with ``{PREFIX}:``. What must be done at once is done by a script (``scripts``).

What makes each acknowledged message arrive once, or its loss known: groups have numbers (``writer``), entries form a
chain (``entries``), connections ask whose log it is (``link``), and snapshots are verified (``snapshot``). tests/models
has each of these as a small model, with the rules that do not hold.
"""
