"""Where adapters are chosen and wired, and runs are recorded, leased and journalled."""
