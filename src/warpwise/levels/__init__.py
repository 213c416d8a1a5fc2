"""Levels above the registration of one pair: training (1); architecture (2) and tuning (3) are to come."""
