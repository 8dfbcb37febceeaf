"""Where a vault's bytes lie: a local folder, and later object storage and SFTP."""
