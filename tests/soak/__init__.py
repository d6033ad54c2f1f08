"""All at once, for a while: every transport and store, several processes, and whatever can be killed is killed.

``python -m tests.soak`` (``make soak``) runs it, and writes docs/soak.md. ``ledger`` judges: of each publish that was
acknowledged, whether each subscriber got it once and in order, or was told that it was lost.
"""
