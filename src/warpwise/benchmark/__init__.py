"""Methods, measured on datasets."""
