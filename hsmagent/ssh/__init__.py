"""The ssh-agent protocol (RFC 9987), sans I/O."""
