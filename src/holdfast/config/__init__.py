"""The configuration file: schema, loading, interpolation, and how it is shown."""
