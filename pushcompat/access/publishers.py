"""Who may publish: with the root key, with a named key, by a signature; or anyone, where the rules say so.

All requests with one key get the same grant, so that what ends the key ends all of them, wherever they are cached: in
``Access``, in a connection, in a template of the hub.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from ..errors import Forbidden, Unauthorized
from ..message import ACCESS_LOG, Message
from ..wire.request import Request
from .grant import Grant
from .keys import NEEDS_KEY, PublishKeys, bearer
from .named_key import ROOT, NamedKey, from_record, to_record
from .policy import Policy
from .quotas import Quotas
from .rules import ANY_KEY, ANYONE
from .scope import Scope
from .signatures import Signatures

KIND = "key"  # of an entry of the access log
_REVOKED = b'{"revoked":true}'
_REVOKED_S = 30 * 86400.0  # how long the log keeps it: longer than a process can be without the log, and then go on
_GRANTS = 1024  # of one key there are as many as origins that send it


class Publishers:
    def __init__(self) -> None:
        self.keys = PublishKeys()
        self._grants: dict[tuple[str, bytes], Grant] = {}  # by name of the key, and CORS lines
        self._quotas = Quotas()
        self.configure(Policy())

    def configure(self, policy: Policy) -> None:
        """Replaces what was configured, and ends all grants."""
        self.keys.configure(policy.publish_keys, policy.keys)
        self._quotas.configure(policy.publish_rate)
        self._rules = policy.rules
        every = [rule.publish for rule in [*policy.rules.rules, policy.rules.default]]
        self._any_open = ANYONE in every
        self._all_take_keys = all(publish in (ANY_KEY, ANYONE) for publish in every)
        self._signatures = Signatures(policy.keys)
        self._end(list(self._grants))

    # The access log

    def added(self, key: NamedKey) -> Message:
        """An added key as a message of the access log; it replaces an earlier key of that name."""
        return Message(ACCESS_LOG, to_record(key), True, f"{KIND}:{key.name}")

    def revoked(self, name: str) -> Message:
        return Message(ACCESS_LOG, _REVOKED, True, f"{KIND}:{name}", ttl_s=_REVOKED_S)

    def apply(self, message: Message) -> None:
        """Adds a key, or revokes it: by any other document, since what is not understood must not be valid."""
        name = (message.key or "").partition(":")[2]
        self.keys.remove(name)
        self._quotas.forget(name)
        self._end([grant for grant in self._grants if grant[0] == name])
        with suppress(ValueError):
            self.keys.add(from_record(name, message.data))

    # Admission

    def admit(self, request: Request, cors: bytes) -> Grant | None:
        """None: it is signed, and the body is needed. Raises Unauthorized."""
        given = bearer(request.fields.headers.get(b"authorization", b""))
        if given:
            key = self.keys.find(given)
            return self._grant(ROOT if key is None else key.name, key, cors)
        if self._signatures.signs(request):
            return None
        if not self._any_open:
            raise Unauthorized(NEEDS_KEY)
        return self._grant("", None, cors)

    def admit_body(self, request: Request, cors: bytes) -> Grant:
        """For a request whose body is complete. The id of a signature becomes its idempotency key. Raises
        Unauthorized.
        """
        grant = self.admit(request, cors)
        if grant is not None:
            return grant
        key = self._signatures.verify(request)
        request.idempotency_key = request.fields.headers[b"webhook-id"]
        return Grant(key.name, cors, scope=self._scope(key), signed=True, quota=self._quotas.of(key.name, key.rate))

    def admit_root(self, authorization: bytes, what: str) -> None:
        """``what`` names the action, for the error. Raises Unauthorized, or Forbidden for a named key."""
        given = bearer(authorization)
        if not given:
            raise Unauthorized(f'{what} needs the publish key: send "Authorization: Bearer KEY"')
        key = self.keys.find(given)
        if key is not None:
            raise Forbidden(f"{what} needs the root key of the server; key {key.name} can only publish")

    def admit_any(self, authorization: bytes, what: str) -> None:
        """Like ``admit_root``, for any publish key. Raises Unauthorized."""
        given = bearer(authorization)
        if not given:
            raise Unauthorized(f'{what} needs a publish key: send "Authorization: Bearer KEY"')
        self.keys.find(given)

    def _grant(self, name: str, key: NamedKey | None, cors: bytes) -> Grant:
        grant = self._grants.get((name, cors))
        if grant is None:
            if len(self._grants) >= _GRANTS:
                self._end(list(self._grants))
            scope = None if name == ROOT else self._scope(key)
            quota = self._quotas.of(name, None if key is None else key.rate)
            grant = self._grants[name, cors] = Grant(name, cors, scope=scope, quota=quota)
        return grant

    def _scope(self, key: NamedKey | None) -> Scope | None:
        """None if the key may publish to every channel."""
        everywhere = key is not None and any(pattern.text == "*" for pattern in key.channels)
        return None if everywhere and self._all_take_keys else Scope(key, self._rules)

    def _end(self, ended: Iterable[tuple[str, bytes]]) -> None:
        for name in ended:
            self._grants.pop(name).revoke()
