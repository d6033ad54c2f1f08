"""The Tornado application: everything that is not under /channels, and the way from the hub to it and back."""
