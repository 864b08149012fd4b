"""Plans on torch: modules, caches, passes. Torch is imported here and in the rows above, nowhere else."""
