"""How to register, as data: a `Method` is what a person writes, a search varies, a record keeps."""

from warpwise.methods.method import PRESETS, ImageSettings, Method

__all__ = ["PRESETS", "ImageSettings", "Method"]
