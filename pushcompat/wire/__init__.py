"""Sans-I/O protocol code: parses requests, encodes responses, frames and events. No sockets, clock or framework."""
