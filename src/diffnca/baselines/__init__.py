"""Baselines to compare with: a UNet, and the variational autoencoder VNCA."""
