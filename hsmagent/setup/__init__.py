"""What `hsmagent setup` does: files of ours put where one person's session finds them, and back."""
