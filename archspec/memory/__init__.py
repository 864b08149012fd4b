"""What a plan costs in memory: accounts, allocators, what fits a device. No torch."""
