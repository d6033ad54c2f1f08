"""The Tornado application: everything outside /channels, and the transfer of connections to it and back."""
