"""The commands of `fairboard`, by what they do. Each module registers its own."""
