"""Models that generate text, in a worker process: continuous batching by OpenVINO GenAI, and encoder-decoder models."""
