"""What runs when, and the fairboard command line."""
