"""The daemon's process: builds every part, owns the sockets; also the private agent."""
