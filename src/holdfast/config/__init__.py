"""The configuration file: found, read, checked, shown, written.

`load` is what a run needs; `show`, `schema` and `init` answer questions about the file.
"""
