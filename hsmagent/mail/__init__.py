"""S/MIME: a filter that runs in the client's process and never holds a private key."""
