"""The pages, one file each: they read as what stands on the screen, from top to bottom."""
