"""Commands that edit given images: fill, grow, enlarge, vary."""
