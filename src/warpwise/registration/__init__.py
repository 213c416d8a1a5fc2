"""One pair, from images to files."""
