"""One export: layout, signatures, features, fingerprint; read only, and nothing is run."""
