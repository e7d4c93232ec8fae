"""The PKCS#11 face: p11-kit's RPC, served to every program that knows keys by PKCS#11."""
