"""The recipe that makes the embedded world: people, faces, scenes, tokenizer and model."""
