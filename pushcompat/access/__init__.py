"""Who may do what. ``Access.admit`` is asked before anything else is done with a request; the rest sees its grant."""

from .access import Access
from .grant import Grant

__all__ = ["Access", "Grant"]
