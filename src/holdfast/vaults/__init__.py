"""Where backups rest, and in which form."""
