"""Who is on the other end: the peer process and the ssh destination."""
