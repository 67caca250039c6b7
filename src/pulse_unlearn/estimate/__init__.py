"""What a plan will take, before a weight is loaded: memory, disk, time and tokens."""
