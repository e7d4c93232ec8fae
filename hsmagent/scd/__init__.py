"""GnuPG's agent, which takes us for its scdaemon: commands, and one card for all tokens."""
