"""Images and deformations with known truth."""
