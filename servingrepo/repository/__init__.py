"""The repository: where its files lie, what each of them holds, and how a change is committed or recovered."""
