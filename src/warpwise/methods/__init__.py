"""How to register, as data."""
