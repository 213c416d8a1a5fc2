"""What training sees: decoded volumes, pairs drawn at random."""
