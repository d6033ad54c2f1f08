"""Authorisation. ``Access.admit`` is called before anything else is done with a request; other code uses its grant."""

from .access import Access
from .grant import Grant

__all__ = ["Access", "Grant"]
