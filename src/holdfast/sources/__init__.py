"""One module per kind of store; modules with an underscore are shared among them."""
