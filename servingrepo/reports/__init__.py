"""Results and facts as text for other readers: Markdown so far. Values in, text out; nothing is written."""
