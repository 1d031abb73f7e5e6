"""What is kept and how it is committed: layout, records, history, journal, references, recovery and trash."""
