"""Loading a model from its folder: configuration, tokenizer, weights, graph."""
