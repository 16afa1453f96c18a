"""The Hugging Face face: /hf/{endpoint}. CONTRACT.md says what it promises."""
