"""The repository vault: deduplicated and encrypted, in restic's repository format, version 2."""
