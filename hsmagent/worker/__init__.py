"""The process that holds one PKCS#11 module, and what daemon and worker say to each other."""
