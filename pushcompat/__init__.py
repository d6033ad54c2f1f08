"""Push updates to every page on every network: WebSocket, Server-Sent Events and long-poll behind one log.

An application publishes with ``from pushcompat import publish``. That pulls in the standard library only; the
server's dependencies are imported by the server.
"""

__version__ = "0.1.0"
