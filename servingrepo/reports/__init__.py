"""Reports: what a verb returned, as one page of HTML, as JUnit's XML, or as Markdown; values in, text out."""
