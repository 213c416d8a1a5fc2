"""Files: NIfTI images, ITK transforms, and outputs that appear whole or not at all."""
