"""What is measured: one module for each case, each with one function ``measure``."""
