"""Holdfast backs up, verifies and restores whole application stacks."""

__version__ = "0.1.0"
