"""Authorisation. ``Access.admit`` is called before anything else is done with a request; other code uses its grant.

Imports nothing: the configuration has rules, and the command line starts without the parser of requests.
"""
