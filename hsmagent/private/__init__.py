"""What `hsmagent ssh-agent` runs in place of OpenSSH's: a private agent for one ssh socket."""
