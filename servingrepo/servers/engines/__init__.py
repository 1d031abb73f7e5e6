"""How a server is started, and how files reach it: one file per engine."""
