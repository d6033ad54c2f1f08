"""What applications written with a framework need of a push server: docs/applications.md.

Each module imports its framework, so each is an extra, and the rest of the package imports none of them.
"""
