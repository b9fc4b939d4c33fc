"""The archive of recordings: fetched, checked, hashed, published, read back, and deleted at the source on demand."""
