"""Signs of life: the board of all workers, and each worker's pulse, canary and loop lag."""
