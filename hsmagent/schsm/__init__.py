"""The SmartCard-HSM (also sold as Nitrokey HSM), without I/O: commands, files, shares, backups."""
