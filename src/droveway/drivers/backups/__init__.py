"""Where backups lie: a directory, or a bucket of a server that speaks S3."""
