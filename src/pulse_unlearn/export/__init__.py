"""Models of a finished run as folders that plain transformers and PEFT load, with a model card."""
