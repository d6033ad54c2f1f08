"""The Tornado application: everything that is not under /channels, and how connections get there and back."""
