"""The command line: one file per command; text and JSON rendering apart."""
