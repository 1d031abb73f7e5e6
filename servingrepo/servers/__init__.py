"""TensorFlow Serving from outside: its addresses, its gRPC client, its states, metrics and transport security."""
