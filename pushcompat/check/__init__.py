"""``pushcompat check``: what is open to whom with a configuration, what is dangerous about it, and why for one channel.

It opens neither the log nor a socket, and asks the same code as the server.
"""
