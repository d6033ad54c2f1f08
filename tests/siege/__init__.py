"""Hostile clients of many kinds beside good ones, at one server: ``python -m tests.siege``."""
