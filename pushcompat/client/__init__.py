"""The other side of the protocol: publishing from an application or a shell, following channels from a program.

``publisher`` and ``dial`` need nothing but the standard library, so that an application that publishes needs no more.
"""
