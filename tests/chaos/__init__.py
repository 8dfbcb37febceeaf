"""Backups and restores of an application that goes on writing, killed at random, hundreds of times.

    python -m tests.chaos --kills 300 --seed 7

A writer, in a process of its own, adds numbers to two databases, vectors and a folder, and notes
each one that was acknowledged. Commands are killed at a random step or after a random time.
After each kill the stack is recovered if it asks for that, and held against what must be true.
"""
