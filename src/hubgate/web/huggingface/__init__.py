"""The Hugging Face face: /hf/{endpoint}. CONTRACT.md describes what it guarantees."""
