"""How repeats of a publish, and of the items of a batch, are recognised: publisher, key, and hash of the content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec

from ..access.grant import Grant
from ..access.replays import REPLAY_S
from ..message import Message
from ..store.base import Idempotency, id_reused

_PARAMETERS = ("key", "type", "ttl")
_NO_PARAMETERS = "\n".join([f"{name}=" for name in _PARAMETERS])
_SHORT_BYTES = 96
_encode = msgspec.msgpack.Encoder().encode


def of_request(
    grant: Grant, key: bytes, media_type: str, names: Sequence[str], params: Mapping[str, str], body: bytes
) -> Idempotency:
    given = "\n".join([f"{name}={params.get(name, '')}" for name in _PARAMETERS]) if params else _NO_PARAMETERS
    about = "\n".join([media_type, *names, given, ""]).encode() + body
    digest = about if len(about) <= _SHORT_BYTES else sha256(about).digest()  # short text is its own digest
    if grant.signed:
        return Idempotency(_signer(grant), key.decode("latin-1"), digest, REPLAY_S)
    return Idempotency(grant.publisher, key.decode("latin-1"), digest)


def item_ids(grant: Grant, drafts: Sequence[Message], ids: Sequence[str | None]) -> list[Idempotency | None]:
    """The ids of the items of a batch, apart from the keys of whole publishes. Call it before rules change the drafts.
    Raises KeyReused if two different ones have the same id.
    """
    publisher = f"{_signer(grant) if grant.signed else grant.publisher} items"
    lifetime_s = REPLAY_S if grant.signed else 0.0
    items: list[Idempotency | None] = []
    seen: dict[str, bytes] = {}
    for index, (draft, name) in enumerate(zip(drafts, ids, strict=True)):
        if name is None:
            items.append(None)
            continue
        about = draft.channel, draft.data, draft.json, draft.key, draft.type, draft.ttl_s
        digest = sha256(_encode(about)).digest()
        if seen.setdefault(name, digest) != digest:
            raise id_reused(index)
        items.append(Idempotency(publisher, name, digest, lifetime_s))
    return items


def _signer(grant: Grant) -> str:
    """What a publisher has signed is remembered apart from what it sends with its publish key, and for longer."""
    return f"{grant.publisher} by signature"
