"""Signs of life: the board of all workers, each worker's pulse, its canary and its loop lag."""
