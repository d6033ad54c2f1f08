"""Clients of the protocol: publishing from an application or a shell, subscribing to channels from a program.

``publisher`` and ``dial`` import only the standard library, since applications import them.
"""
