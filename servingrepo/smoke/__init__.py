"""Smoke tests: send the user's cases or made-up inputs to an endpoint, and return verdicts."""
