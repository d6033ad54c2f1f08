"""Bytes only: requests in, answers, frames and events out. No sockets, no clock, no asyncio, no Tornado."""
