"""Our place on the desktop's session bus: service, lock and sleep watch, notifications."""
