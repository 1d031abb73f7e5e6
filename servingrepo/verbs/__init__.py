"""The verbs: a file for each of them, with its function and its result. `options` has the options."""
