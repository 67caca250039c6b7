"""How the embedded world is made: people, faces, scenes, tokenizer, model; and a larger one."""
