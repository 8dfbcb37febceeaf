"""For authors of adapters: memory adapters, fault wrappers, and the contract suites."""
