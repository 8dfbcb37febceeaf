"""Values without input or output: what backups, artifacts, plans and facts are."""
