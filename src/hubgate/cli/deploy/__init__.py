"""`hubgate deploy`: creating and running Inference Endpoints."""
