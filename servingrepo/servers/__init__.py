"""TensorFlow Serving from outside: endpoints, gRPC client, states, metrics, security; engines start servers."""
