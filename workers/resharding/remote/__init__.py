"""Files behind a URL: exactly the bytes that are wanted, kept in a cache that processes share."""
