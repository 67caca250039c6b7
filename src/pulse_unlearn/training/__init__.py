"""The one training loop, for fine-tuning and every unlearning method."""
