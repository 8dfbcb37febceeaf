"""S3 over HTTP: signed requests, for the source that backs up buckets and the store in one."""
