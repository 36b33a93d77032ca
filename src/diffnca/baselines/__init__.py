"""Variational autoencoders of images: what VNCA is trained for, and how it makes images."""
